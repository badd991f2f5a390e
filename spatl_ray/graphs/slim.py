"""A physically smaller copy of a network, without the channels that a mask removes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from spatl_ray.arrays import Bits
from spatl_ray.errors import ModelError
from spatl_ray.graphs.coupling import Coupling
from spatl_ray.graphs.graph import Graph, Node
from spatl_ray.graphs.operations import argument
from spatl_ray.graphs.rules import padding


def slim(graph: Graph, coupling: Coupling, bits: Bits) -> fx.GraphModule:
    """The network with the channels of the closed mask only.

    In evaluation mode it gives what the whole network gives with the parameters of the removed
    channels (weights, biases, and those of the normalisation behind a layer) set to 0. It has the
    values that the graph's module has now, and shares no tensor with it. The predictor reads fewer
    features, its outputs stay.

    Args:
        graph: the traced network.
        coupling: its coupling.
        bits: shape (channels of all groups,); its closure is kept.

    Raises:
        ModelError: a layer without a kept channel, or bits of another shape.
    """
    kept = coupling.classes_of(bits)
    _refuse_empty(graph, kept[coupling.labels])
    copied = _copied(graph.module)
    calls = list(copied.graph.nodes)
    for node, call, labels in zip(graph.nodes, calls, coupling.tensors, strict=True):
        outputs = kept[labels]
        inputs = kept[coupling.tensors[node.inputs[0]]] if node.inputs else outputs
        if inputs.all() and outputs.all():
            continue
        if node.kind == "pad" and node.module is None:
            _pad_less(call, len(graph.nodes[node.inputs[0]].shape) + 1, outputs)
        elif node.module is not None:
            _narrow(copied.get_submodule(node.module), node, inputs, outputs)
    copied.recompile()
    return copied


def _refuse_empty(graph: Graph, kept: Bits) -> None:
    """A layer without channels is none."""
    for group in graph.groups:
        if not kept[group.offset : group.offset + group.channels].any():
            raise ModelError(
                f"bits must keep at least one channel of each layer, got none of {group.name}"
            )


def _copied(module: fx.GraphModule) -> fx.GraphModule:
    """A copy in evaluation mode with tensors of its own.

    Buffers may be views of one long vector, which a plain deep copy would copy whole for each.
    """
    memo: dict[int, Any] = {id(buffer): buffer.clone() for buffer in module.buffers()}
    copied = copy.deepcopy(module, memo)
    copied.eval()
    return copied


def _narrow(layer: nn.Module, node: Node, inputs: Bits, outputs: Bits) -> None:
    """Take channels out of a layer's tensors; other modules have none."""
    channels = int(outputs.sum())
    if node.kind in ("conv", "linear"):
        _take(layer, "weight", 1, inputs)
    if node.kind not in ("conv", "depthwise", "linear", "norm"):
        return
    for name in ("weight", "bias", "running_mean", "running_var"):
        _take(layer, name, 0, outputs)
    _declare(layer, int(inputs.sum()), channels, len(outputs))


def _take(layer: nn.Module, name: str, axis: int, kept: Bits) -> None:
    """Keep some entries of a layer's tensor along an axis; nothing if it has no such tensor."""
    tensor = getattr(layer, name, None)
    if not isinstance(tensor, Tensor) or kept.all():
        return
    index = torch.from_numpy(np.flatnonzero(kept)).to(tensor.device)
    taken = tensor.detach().index_select(axis, index)
    if isinstance(tensor, nn.Parameter):
        taken = nn.Parameter(taken, tensor.requires_grad)
    setattr(layer, name, taken)


def _declare(layer: Any, inputs: int, outputs: int, before: int) -> None:
    """Let a layer's own numbers of channels agree with its tensors."""
    if isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = inputs, outputs
    elif isinstance(layer, nn.GroupNorm):
        layer.num_groups = layer.num_groups * outputs // before
        layer.num_channels = outputs
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        layer.groups = outputs if layer.groups > 1 else 1
        layer.in_channels, layer.out_channels = inputs, outputs
    else:
        layer.num_features = outputs


def _pad_less(call: fx.Node, rank: int, outputs: Bits) -> None:
    """Pad only the channels that are kept; those that are read lie between them.

    Args:
        call: of `functional.pad`.
        rank: dimensions of what is padded, with the batch.
        outputs: whether each channel behind the padding is kept.
    """
    before, behind = padding(call, rank) or (0, 0)
    own = [int(outputs[:before].sum()), int(outputs[len(outputs) - behind :].sum())]
    pads = list(argument(call, 1, "pad", ()))
    pads[2 * (rank - 2) : 2 * (rank - 1)] = own if len(pads) >= 2 * (rank - 1) else []
    call.args = (call.args[0], tuple(pads), *call.args[2:])
    call.kwargs = {name: value for name, value in call.kwargs.items() if name != "pad"}
