"""Floating-point operations of local training, counted by torch's own formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.models.flat import FlatModel
from spatl_ray.models.split import blank

Shape = Sequence[int]


def training_flops(
    model: FlatModel, spec: SampleSpec, parts: frozenset[str] | None = None
) -> float:
    """FLOPs of one forward and backward pass of one sample.

    Convolutions, matrix products and recurrent layers count, at two operations a multiplication;
    normalisation, activations, pooling and look-ups of embeddings do not. Counted on two samples
    and halved, because batch norm cannot train on one.

    Args:
        model: its values and mode are left as they were, its gradient is overwritten.
        spec: of the data.
        parts: that are trained; None for all. What is frozen costs no gradients of its own.
    """
    device, dtype = model.parameters.device, model.parameters.dtype
    before = model.buffers.clone()
    model.train(parts)
    counter = _Counter()
    with counter:
        logits = model.module(blank(spec, 2, dtype).to(device))
        functional.cross_entropy(
            logits, torch.zeros(2, dtype=torch.int64, device=device)
        ).backward()
    model.buffers.copy_(before)
    model.evaluate()
    return counter.flops / 2


def _convolution_backward(
    outputs: Shape,
    inputs: Shape,
    weight: Shape,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
    wanted: Sequence[bool],
    **_: object,
) -> int:
    """As much as forward, for each of the two gradients (of inputs and weight) that is wanted.

    torch's own formula multiplies the weight's gradient by `groups`: 10 instead of 3 forward passes
    for a depthwise convolution of 8 channels.
    """
    positions = inputs if transposed else outputs
    forward = 2 * inputs[0] * math.prod(positions[2:]) * math.prod(weight)
    return forward * sum(wanted[:2])


def _recurrent(inputs: Shape, weights: Sequence[Shape]) -> int:
    """Each weight matrix takes part once for each sample and time step."""
    steps = inputs[0] * inputs[1]
    return 2 * steps * sum(math.prod(shape) for shape in weights if len(shape) == 2)


def _mkldnn_rnn(inputs: Shape, *others: Any, **_: object) -> int:
    """One layer and direction: `others` begins with its weights of the input and the hidden state."""
    return _recurrent(inputs, others[:2])


def _cudnn_rnn(inputs: Shape, weights: Sequence[Shape], *others: Any, **_: object) -> int:
    """All layers and directions: `weights` holds matrices and biases."""
    return _recurrent(inputs, weights)


def _twice(forward: Callable[..., int]) -> Callable[..., int]:
    """The gradients of inputs and weights."""
    return lambda *arguments, **options: 2 * forward(*arguments, **options)


FORMULAS: Mapping[Any, Callable[..., int]] = {
    torch.ops.aten.convolution_backward: _convolution_backward,
    torch.ops.aten.mkldnn_rnn_layer: _mkldnn_rnn,
    torch.ops.aten.mkldnn_rnn_layer_backward: _twice(_mkldnn_rnn),
    torch.ops.aten._cudnn_rnn: _cudnn_rnn,
    torch.ops.aten._cudnn_rnn_backward: _twice(_cudnn_rnn),
}
"""What torch's counter gets wrong, and what it does not know: fused recurrent layers."""


class _Counter(TorchDispatchMode):
    """Counts the operations of what is called while it is entered.

    As `torch.utils.flop_counter.FlopCounterMode`, whose first call imports torch's compiler: over a
    second of each run's start.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: float = 0.0
        self._formulas = {**flop_registry, **{op: shape_wrapper(f) for op, f in FORMULAS.items()}}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, so that there is nothing that the compiler must skip."""
        return False

    def __torch_dispatch__(
        self,
        operation: Any,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        output = operation(*args, **(kwargs or {}))
        formula = self._formulas.get(operation.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=output)
        return output
