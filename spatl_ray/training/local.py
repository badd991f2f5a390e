"""THE training loop: stochastic gradient descent of one client's model on its own samples.

What algorithms change is data, not code: where the model starts, a constant and a proximal
correction of the gradient, and which parts train for how long. So one loop serves all of them, and
a group of clients can be trained together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
class _Correction:
    """A task's gradient correction on the training device."""

    offset: Tensor | None
    mu: float
    anchor: Tensor | None

    def apply(self, parameters: Tensor, gradient: Tensor) -> None:
        """gradient += offset + mu (parameters - anchor), on the first positions."""
        if self.offset is not None:
            gradient[: len(self.offset)].add_(self.offset)
        if self.anchor is not None:
            n = len(self.anchor)
            gradient[:n].add_(parameters[:n] - self.anchor, alpha=self.mu)


class _Trained(NamedTuple):
    """A range of the parameter vector that is trained, as views."""

    parameters: Tensor
    gradient: Tensor
    velocity: Tensor


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

    def run(
        self, task: LocalTask, x: Tensor, y: Tensor, lr: float, batches: np.random.Generator
    ) -> LocalResult:
        """Train from `task.start`; momentum starts at 0.

        The order of a step is gradient, clipping, weight decay and norm sparsity, correction,
        momentum.

        Args:
            task: what to train.
            x: samples, shape (n, *shape), on the model's device.
            y: labels, shape (n,).
            lr: learning rate of this round.
            batches: draws the order of the samples; a child of it draws what augmentation does to
                them, so that the order is the same without.

        Raises:
            ConfigError: a phase in which nothing trains.
            DataError: no samples, or a single one in a step of a model with batch norm.
        """
        if not len(y):
            raise DataError("local training needs at least one sample, got none")
        self.model.load(task.start)
        correction, loss_of = self._correction(task), task.loss or self.loss
        changes = batches.spawn(1)[0] if self.training.augment else batches
        velocity = torch.zeros_like(self.model.parameters)
        losses: list[Tensor] = []
        sizes: list[int] = []
        part_steps = dict.fromkeys((s.part for s in self.model.layout.parameters.segments), 0)
        for phase in task.phases:
            self.model.train(phase.parts)
            trained = self._trained(phase, velocity)
            before = len(sizes)
            for index in self._batches(phase, len(y), batches):
                rows = torch.from_numpy(index).to(x.device)
                # Not x[rows]: that takes four times as long for a small batch.
                seen = augmented(x.index_select(0, rows), self.training.augment, changes)
                losses.append(self._gradient(loss_of, seen, y.index_select(0, rows)).detach())
                self._step(trained, correction, lr)
                sizes.append(len(index))
            for part in filter(phase.trains, part_steps):
                part_steps[part] += len(sizes) - before
        loss = _mean(losses, sizes)
        return LocalResult(self.model.read(), len(sizes), part_steps, sum(sizes), loss)

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

    def _step(self, trained: Sequence[_Trained], correction: _Correction, lr: float) -> None:
        """One step of SGD with momentum on the trained ranges; the flat vectors ask for no gradient."""
        parameters, gradient = self.model.parameters, self.model.gradient
        if self.training.clip_norm is not None:
            norm = torch.linalg.vector_norm(gradient)
            gradient.mul_((self.training.clip_norm / (norm + 1e-12)).clamp(max=1.0))
        if self.training.weight_decay:
            gradient.add_(parameters, alpha=self.training.weight_decay)
        if self._scales is not None:
            signs = parameters[self._scales].sign_()
            gradient.index_add_(0, self._scales, signs, alpha=self.training.norm_sparsity)
        correction.apply(parameters, gradient)
        for own, slope, moved in trained:
            own.sub_(moved.mul_(self.training.momentum).add_(slope), alpha=lr)

    def _correction(self, task: LocalTask) -> _Correction:
        """The task's correction as tensors beside the model."""

        def beside(array: Array | None) -> Tensor | None:
            like = self.model.parameters
            return (
                None if array is None else torch.tensor(array, dtype=like.dtype, device=like.device)
            )

        return _Correction(beside(task.offset), task.mu, beside(task.anchor) if task.mu else None)

    def _trained(self, phase: Phase, velocity: Tensor) -> list[_Trained]:
        """Views of what the phase trains: parameters, gradient, velocity."""
        vectors = (self.model.parameters, self.model.gradient, velocity)
        return [_Trained(*(vector[span] for vector in vectors)) for span in self._ranges(phase)]

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


def _mean(losses: Sequence[Tensor], sizes: Sequence[int]) -> float:
    """The mean loss over the samples of all steps, in float64; NaN without steps."""
    if not losses:
        return float("nan")
    each = torch.stack(list(losses)).double()
    total = (each * torch.tensor(sizes, dtype=torch.float64, device=each.device)).sum()
    return float(total) / sum(sizes)
