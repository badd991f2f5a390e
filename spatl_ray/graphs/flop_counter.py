"""Floating-point operations, counted by torch's own formulas while they are done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

Shape = Sequence[int]


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


class FlopCounter(TorchDispatchMode):
    """Counts the operations of what is called while it is entered.

    Convolutions, matrix products and recurrent layers count, at two operations a multiplication. As
    `torch.utils.flop_counter.FlopCounterMode`, whose first call imports torch's compiler: over a
    second of each run's start.

    Attributes:
        flops: counted so far.
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
