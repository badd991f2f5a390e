"""Gradients of several clients' models in one batched computation.

torch.func's vmap turns the network into one over a group: a matrix product of each client becomes one
batched product. For small models most of the time of such a step would pass in vmap's and autograd's Python.
So forward and backward pass of such a model are traced once for each shape of a group's batch, into the list
of operations that they come to, and that list is what is run. Results agree with training one by one up to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import cross_entropy

from spatl_ray.arrays import Doubles
from spatl_ray.config import Training
from spatl_ray.data.dataset import SampleSpec
from spatl_ray.errors import ConfigError
from spatl_ray.models.flat import FlatModel
from spatl_ray.parameters import Segment
from spatl_ray.training.batches import Rows
from spatl_ray.training.forward import Forward

Operations = Callable[..., tuple[Tensor, list[Tensor | None]]]
"""(features, labels, weights, *tensors) -> losses and each tensor's gradient, None if it is not trained."""

FEW = 16
"""Most tensors of a network that is traced: with more, tracing takes seconds, and less would be gained."""

AGREEMENT = 1e-3
"""Largest relative difference between gradients at once and alone."""

SMALL = 0.01
"""Share of the largest gradient below which a tensor's own is no measure."""


class Together:
    """Losses and gradients of a group, each client at its own parameters and on its own batch.

    The own Python code of a network of few tensors runs once for each shape of a batch.

    Args:
        model: the network, without buffers.
        forward: its forward pass.
    """

    def __init__(self, model: FlatModel, forward: Forward) -> None:
        self._segments = model.layout.parameters.segments
        self._outputs = vmap(lambda x, parameters: forward(x, parameters), randomness="error")
        self._places = [(s.span, s.shape) for s in self._segments]
        self._known: dict[object, Operations] = {}

    def gradient(
        self,
        parameters: Tensor,
        gradient: Tensor,
        parts: frozenset[str] | None,
        x: Tensor,
        y: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """The loss of each client, shape (k,); its gradient is left in `gradient`.

        Args:
            parameters: shape (k, P).
            gradient: where it is left, shape (k, P); 0 in parts that are not trained.
            parts: that are trained; None for all.
            x: features, shape (k, batch, *shape).
            y: labels, shape (k, batch).
            weights: of the samples in the loss, shape (k, batch).
        """
        count = len(x)
        tensors = [parameters[:, span].view(count, *shape) for span, shape in self._places]
        kind = (x.shape, parts)
        if kind not in self._known:
            self._known[kind] = self._operations(parts, x, y, weights, *tensors)
        losses, slopes = self._known[kind](x, y, weights, *tensors)
        if parts is not None:
            gradient.zero_()
        for (span, shape), slope in zip(self._places, slopes, strict=True):
            if slope is not None:
                gradient[:, span].view(count, *shape).copy_(slope)
        return losses

    def _operations(self, parts: frozenset[str] | None, *like: Tensor) -> Operations:
        """What is run on batches of a shape."""
        operations = self._of([s for s in self._segments if parts is None or s.part in parts])
        if len(self._segments) > FEW:
            return operations
        return torch.no_grad()(make_fx(operations)(*like).forward)

    def _of(self, trained: Sequence[Segment]) -> Operations:
        """Losses and slopes of the tensors, None for those that are not trained."""

        def operations(
            x: Tensor, y: Tensor, weights: Tensor, *tensors: Tensor
        ) -> tuple[Tensor, list[Tensor | None]]:
            views = {s.name: tensor for s, tensor in zip(self._segments, tensors, strict=True)}
            leaves = [views[s.name].detach().requires_grad_() for s in trained]
            views.update({s.name: leaf for s, leaf in zip(trained, leaves, strict=True)})
            outputs = self._outputs(x, views)
            each = cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none")
            losses = (each.view_as(weights) * weights).sum(dim=1)
            # One backward pass through the sum: each client's loss has its own leaves.
            slopes = torch.autograd.grad(
                losses.sum(), leaves, allow_unused=True, materialize_grads=True
            )
            found = dict(zip([s.name for s in trained], slopes, strict=True))
            return losses.detach(), [found.get(s.name) for s in self._segments]

        return operations


def padded(indices: Sequence[Rows], most: int) -> tuple[list[Rows], Doubles]:
    """Batches of one length, and each sample's weight in its batch's mean, shape (k, length).

    Shorter ones are filled with their first sample, which then has weight 0. The length is a power of two
    or the config's, so that there are few shapes.

    Args:
        indices: of each client's batch.
        most: `training.batch_size`.
    """
    length = min(most, 1 << (max(map(len, indices)) - 1).bit_length())
    weights = np.zeros((len(indices), length))
    filled = []
    for own, index in zip(weights, indices, strict=True):
        own[: len(index)] = 1 / len(index)
        missing = length - len(index)
        filled.append(np.concatenate([index, np.repeat(index[:1], missing)]) if missing else index)
    return filled, weights


def check_together(model: FlatModel, training: Training, spec: SampleSpec) -> None:
    """Refuse to train clients together where that cannot be done.

    A group of two is tried: their gradients must be those that each of them has alone. (A module may keep
    a second reference to a weight, which a batched computation does not replace; a forward pass may
    take means over the batch, which is filled up there.)

    Args:
        model: the network.
        training: its options.
        spec: of the samples.

    Raises:
        ConfigError: another option or the network stands against it.
    """
    if training.together == 1:
        return
    _check_options(model, training)
    values = model.read()
    model.train(None)
    try:
        difference = _difference(model, training.model_copy(update={"precision": "full"}), spec)
        if training.precision != "full":
            _difference(model, training, spec)  # Rounding hides what is wrong, but it must run.
    except Exception as error:
        raise ConfigError(
            f"training.together must be 1 for a model that torch.func.vmap cannot batch, got "
            f"{training.together}: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    finally:
        model.load(values)
        model.evaluate()
    # Not written with >: NaN is no agreement.
    if not difference <= AGREEMENT:
        raise ConfigError(
            f"training.together must be 1 for a model whose gradients torch.func.vmap gets wrong, got "
            f"{training.together} and a relative difference of {difference:.2g}"
        )


def _difference(model: FlatModel, training: Training, spec: SampleSpec) -> float:
    """Between gradients at once and alone, of two clients on noise; relative to each tensor's.

    One batch is shorter, so that samples that look at each other are found out. What is small beside all
    others is rounding: it counts less.
    """
    generator = torch.Generator().manual_seed(0)
    like, batches = model.parameters, [np.arange(3), np.arange(2)]
    filled, weights = padded(batches, 3)
    shape = (2, 3, *spec.shape)
    if spec.vocabulary is None:
        x = torch.randn(shape, generator=generator, dtype=like.dtype)
    else:
        x = torch.randint(spec.vocabulary, shape, generator=generator)
    y = torch.randint(spec.classes, (2, 3), generator=generator)
    x = torch.stack([own[rows] for own, rows in zip(x, filled, strict=True)]).to(like.device)
    y = torch.stack([own[rows] for own, rows in zip(y, filled, strict=True)]).to(like.device)
    forward = Forward(model, training)
    parameters = torch.stack([like, 0.9 * like])
    together, alone = torch.zeros_like(parameters), torch.zeros_like(parameters)
    shares = torch.from_numpy(weights).to(like)
    Together(model, forward).gradient(parameters, together, None, x, y, shares)
    for index, rows in enumerate(batches):
        like.copy_(parameters[index])
        model.gradient.zero_()
        cross_entropy(forward(x[index, : len(rows)]), y[index, : len(rows)]).backward()
        alone[index].copy_(model.gradient)
    apart, size = (together - alone).abs(), alone.abs()
    spans = [segment.span for segment in model.layout.parameters.segments]
    return max(float(apart[:, s].max() / (size[:, s].max() + SMALL * size.max())) for s in spans)


def _check_options(model: FlatModel, training: Training) -> None:
    """Refuse what has no meaning for a group."""
    asked = {
        "a model with buffers (batch norm)": bool(list(model.module.buffers())),
        "an own training.loss": training.loss != "cross_entropy",
        "training.compile": training.compile,
        "training.channels_last": training.channels_last,
    }
    faults = [
        f"training.together must be 1 with {what}, got {training.together}"
        for what, there in asked.items()
        if there
    ]
    if faults:
        raise ConfigError(faults)
