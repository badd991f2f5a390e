"""THE training loop: stochastic gradient descent of one client's model on its own samples.

What algorithms change is data, not code: where the model starts, a constant and a proximal
correction of the gradient, and which parts train for how long. So one loop serves all of them, and
a group of clients can be trained together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from spatl_ray.config import Training
from spatl_ray.errors import ConfigError, DataError
from spatl_ray.models.flat import FlatModel
from spatl_ray.parameters import Array, ModelVector
from spatl_ray.training.augment import augmented
from spatl_ray.training.batches import Rows, draw_batches
from spatl_ray.training.forward import Forward
from spatl_ray.training.loss import Loss, load_loss
from spatl_ray.training.samples import Samples, batch_of
from spatl_ray.training.stack import Stack, Tally, stacked
from spatl_ray.training.together import Together, padded

ONE_SAMPLE = "more than 1 value per channel"
"""What torch's batch norm says of a single sample, which has no variance."""


@dataclass(frozen=True)
class Phase:
    """Parts that train together for a while; all others are frozen.

    Attributes:
        parts: names of model parts, or None for all.
        epochs: passes over the samples.
        steps: local steps instead; with neither, the config's epochs or steps hold.
    """

    parts: frozenset[str] | None = None
    epochs: int | None = None
    steps: int | None = None

    def trains(self, part: str) -> bool:
        """Whether a part is trained in this phase."""
        return self.parts is None or part in self.parts


@dataclass(frozen=True, eq=False)
class LocalTask:
    """One training of one model on one client.

    The gradient of step k is g(y) + offset + mu (y - anchor); `offset` and `anchor` cover the first
    positions of the parameter vector, as many as they have (the shared ones come first).

    Attributes:
        start: the model to start from.
        offset: constant correction of the gradient, or None.
        mu: weight of the proximal term (mu/2) ||y - anchor||^2.
        anchor: its centre; needed if mu > 0.
        phases: what trains, one phase after the other.
        loss: of (model output, labels), mean over the batch; None takes the config's.

    Raises:
        ConfigError: mu without an anchor.
    """

    start: ModelVector
    offset: Array | None = None
    mu: float = 0.0
    anchor: Array | None = None
    phases: tuple[Phase, ...] = (Phase(),)
    loss: Loss | None = None

    def __post_init__(self) -> None:
        if self.mu and self.anchor is None:
            raise ConfigError(f"a task's mu needs an anchor, got mu={self.mu} without one")


@dataclass(frozen=True, eq=False)
class LocalResult:
    """What a local training gave.

    Attributes:
        end: the trained model.
        steps: local steps taken.
        part_steps: those in which each part was trained.
        samples: samples processed, with repetition.
        loss: mean training loss over them, before each step.
    """

    end: ModelVector
    steps: int
    part_steps: Mapping[str, int]
    samples: int
    loss: float


@dataclass(frozen=True, eq=False)
class Job:
    """A task and what it is trained on.

    Attributes:
        task: what to train.
        samples: of the client.
        batches: draws the order of the samples; a child of it draws what augmentation does to them, so
            that the order is the same without.
    """

    task: LocalTask
    samples: Samples
    batches: np.random.Generator


def go_together(jobs: Sequence[Job]) -> bool:
    """Whether jobs can be trained at once: they differ in values only, and minimise the config's loss."""

    def length(array: Array | None) -> int | None:
        return None if array is None else len(array)

    kinds = {
        (task.phases, task.mu, length(task.offset), length(task.anchor), task.loss)
        for task in (job.task for job in jobs)
    }
    return len(kinds) == 1 and jobs[0].task.loss is None


def sparse_scales(model: FlatModel, training: Training) -> Tensor | None:
    """Positions of the scales that `norm_sparsity` draws to 0; None if that is off.

    Raises:
        ConfigError: the model has none.
    """
    if not training.norm_sparsity:
        return None
    segments = model.layout.parameters.norm_scales
    if not segments:
        raise ConfigError(
            "training.norm_sparsity must be 0 for a model without a normalisation behind a "
            f"prunable layer, got {training.norm_sparsity:g}"
        )
    spans = [torch.arange(s.span.start, s.span.stop) for s in segments]
    return torch.cat(spans).to(model.parameters.device)


class Trainer:
    """Runs local tasks on one flat model.

    Args:
        model: the module that every client of this process trains in.
        training: batch size, momentum and so on.

    Raises:
        ConfigError: a loss that cannot be loaded, or norm sparsity without a normalisation.
    """

    def __init__(self, model: FlatModel, training: Training) -> None:
        self.model = model
        self.training = training
        self.loss = load_loss(training.loss)
        self._scales = sparse_scales(model, training)
        self._forward = Forward(model, training)
        self._together = Together(model, self._forward)

    def run(
        self, task: LocalTask, x: Tensor, y: Tensor, lr: float, batches: np.random.Generator
    ) -> LocalResult:
        """Train one task; see `train`.

        Args:
            task: what to train.
            x: samples, shape (n, *shape), on the model's device.
            y: labels, shape (n,).
            lr: learning rate of this round.
            batches: see `Job`.
        """
        return self.train([Job(task, Samples(x, y), batches)], lr)[0]

    def train(self, jobs: Sequence[Job], lr: float) -> list[LocalResult]:
        """Train from each job's start; momentum starts at 0.

        The order of a step is gradient, clipping, weight decay and norm sparsity, correction,
        momentum. One job alone is the reference; several take each step as one batched computation
        (`Together`), and agree with it up to rounding.

        Args:
            jobs: one, or several that go with each other.
            lr: learning rate of this round.

        Raises:
            ConfigError: a phase in which nothing trains.
            DataError: no samples, or a single one in a step of a model with batch norm.
        """
        if not all(len(job.samples) for job in jobs):
            raise DataError("local training needs at least one sample, got none")
        # Those with most steps first: whoever still trains is at the front.
        order = sorted(range(len(jobs)), key=lambda i: (-len(jobs[i].samples), i))
        results = self._train([jobs[i] for i in order], lr)
        return [results[place] for place in np.argsort(order)]

    def _train(self, jobs: Sequence[Job], lr: float) -> list[LocalResult]:
        """The loop, on jobs of which earlier ones take at least as many steps."""
        stack = self._stacked([job.task for job in jobs])
        changes = [job.batches.spawn(1)[0] for job in jobs] if self.training.augment else []
        tally = Tally(len(jobs), {s.part for s in self.model.layout.parameters.segments})
        for phase in jobs[0].task.phases:
            self.model.train(phase.parts)
            spans = self._ranges(phase)
            batches = [self._batches(phase, len(job.samples), job.batches) for job in jobs]
            active = stack.of_first(len(jobs), spans)
            for each in zip_longest(*batches):
                indices = [index for index in each if index is not None]
                if len(indices) < len(active.parameters):
                    active = stack.of_first(len(indices), spans)
                losses = self._losses(jobs, active, phase.parts, indices, changes)
                active.step(self.training, self._scales, lr)
                tally.add(losses, [len(index) for index in indices])
            tally.end_phase(phase.trains)
        ends = [self.model.read()] if len(jobs) == 1 else stack.read()
        return [LocalResult(end, *told) for end, told in zip(ends, tally.told(), strict=True)]

    def _stacked(self, tasks: Sequence[LocalTask]) -> Stack:
        """The tasks' starts and corrections; a single one is trained in the model itself."""
        model = self.model
        if len(tasks) == 1:
            model.load(tasks[0].start)
            parameters, gradient = model.parameters[None], model.gradient[None]
        else:
            parameters = stacked([task.start.parameters for task in tasks], model.parameters)
            gradient = torch.zeros_like(parameters)
        mu, offsets = tasks[0].mu, [task.offset for task in tasks if task.offset is not None]
        anchors = [task.anchor for task in tasks if task.anchor is not None]
        return Stack(
            parameters,
            gradient,
            velocity=torch.zeros_like(parameters),
            offset=stacked(offsets, model.parameters) if offsets else None,
            mu=mu,
            anchor=stacked(anchors, model.parameters) if mu else None,
        )

    def _losses(
        self,
        jobs: Sequence[Job],
        stack: Stack,
        parts: frozenset[str] | None,
        indices: Sequence[Rows],
        changes: Sequence[np.random.Generator],
    ) -> Tensor:
        """Loss of each batch, shape (k,), or of the one; the gradients are left in the stack."""
        samples = [job.samples for job in jobs[: len(indices)]]
        if len(jobs) == 1:
            x, y = self._batch(samples, indices, indices, changes)
            return self._gradient(jobs[0].task.loss or self.loss, x, y).detach()
        filled, weights = padded(indices, self.training.batch_size)
        x, y = self._batch(samples, indices, filled, changes)
        shape = (len(indices), len(filled[0]))
        return self._together.gradient(
            stack.parameters,
            stack.gradient,
            parts,
            x.unflatten(0, shape),
            y.unflatten(0, shape),
            torch.from_numpy(weights).to(stack.parameters),
        )

    def _batch(
        self,
        samples: Sequence[Samples],
        indices: Sequence[Rows],
        filled: Sequence[Rows],
        changes: Sequence[np.random.Generator],
    ) -> tuple[Tensor, Tensor]:
        """Batches of one length, one behind the other; augmented, if that is asked for."""
        if not changes:
            x, y = batch_of(samples, filled)
            return self._cast(x), y
        parts = []
        for own, index, whole, generator in zip(samples, indices, filled, changes, strict=False):
            x, y = batch_of([own], [index])
            x = augmented(self._cast(x), self.training.augment, generator)
            # What fills a batch up draws nothing: it is its first sample again.
            rows = torch.arange(len(whole), device=x.device)
            rows[len(index) :] = 0
            parts.append((x.index_select(0, rows), y.index_select(0, rows)))
        seen, labels = zip(*parts, strict=True)
        return torch.cat(seen), torch.cat(labels)

    def _cast(self, x: Tensor) -> Tensor:
        """Features in the parameters' type; token ids as they are."""
        return x.to(self.model.parameters.dtype) if x.is_floating_point() else x

    def gradient(self, vector: ModelVector, x: Tensor, y: Tensor) -> Array:
        """Gradient of the training loss at a model in evaluation mode, over its parameters.

        Args:
            vector: the model.
            x: samples, shape (n, *shape).
            y: labels, shape (n,).
        """
        self.model.load(vector)
        self.model.evaluate()
        with torch.enable_grad():
            self._gradient(self.loss, x, y)
        found: Array = self.model.gradient.cpu().numpy().copy()
        return found

    def _gradient(self, loss_of: Loss, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch; its gradient is left in `model.gradient`."""
        self.model.gradient.zero_()
        loss = loss_of(self._output(x), y)
        loss.backward()
        return loss

    def _output(self, x: Tensor) -> Tensor:
        """The model's output; what batch norm says of a single sample, with the cure."""
        try:
            return self._forward(x)
        except ValueError as error:
            if len(x) > 1 or ONE_SAMPLE not in str(error):
                raise
            size = self.training.batch_size
            cure = (
                "training.drop_last=true leaves such a last batch out, unless it is all that the "
                "client has"
                if size > 1
                else "take a larger one"
            )
            raise DataError(
                "a step of a model with batch norm needs at least two samples, got one with "
                f"training.batch_size={size}: {cure}"
            ) from error

    def _ranges(self, phase: Phase) -> tuple[slice, ...]:
        """Where the phase's parts lie in the parameter vector."""
        space = self.model.layout.parameters
        spans = (slice(0, space.size),) if phase.parts is None else space.ranges(phase.parts)
        if not spans:
            there = ", ".join(sorted({s.part for s in space.segments}))
            wanted = ", ".join(sorted(phase.parts or ()))
            raise ConfigError(
                f"a phase must train parts that have parameters ({there}), got {wanted or 'none'}"
            )
        return spans

    def _batches(self, phase: Phase, n: int, generator: np.random.Generator) -> Iterator[Rows]:
        """The rows of each step, for as long as the phase or else the config says."""
        training = self.training
        own = phase.epochs is not None or phase.steps is not None
        epochs, steps = (phase.epochs, phase.steps) if own else (training.epochs, training.steps)
        return draw_batches(n, training.batch_size, training.drop_last, epochs, steps, generator)
