"""What each kind of operation does to channels.

A rule gives the channels of a node's output, or None for an operation that it does not understand:
then all channels that it reads and gives must stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import fx, nn

from spatl_ray.graphs.flow import Channels, Links, Step, joined, staying
from spatl_ray.graphs.operations import CHANNEL_NORMS, MEANS, argument, keeps_zero, operation
from spatl_ray.graphs.tracer import QUERIES, is_query

Rule = Callable[[Step, Links], Channels | None]


def outputs(step: Step, links: Links) -> Channels | None:
    """The channels of a node's output; None if they and what it reads must stay."""
    if is_query(step.call) and not _asks_for_channels(step):
        return staying(0)
    rule = RULES.get(step.node.kind)
    if rule is None or step.overwrites or not step.node.shape:
        return None
    found = rule(step, links)
    return found if found is not None and found.count == step.node.shape[0] else None


def _asks_for_channels(step: Step) -> bool:
    """Whether a query's answer depends on the number of channels."""
    call = step.call
    if call.target == "size" and len(call.args) + len(call.kwargs) > 1:
        return _is_channel_axis(step, argument(call, 1, "dim", None))
    if call.target == "size" or (call.target not in QUERIES and call.args[1] == "shape"):
        return any(
            operation(user) != "getitem" or _is_channel_axis(step, user.args[1])
            for user in call.users
        )
    return call.target == "numel"


def _is_channel_axis(step: Step, index: Any) -> bool:
    """Whether an index of a shape is, or may be, that of the channels."""
    return not isinstance(index, int) or step.axis(index) == 1


def _layer(step: Step, links: Links, inputs: int, rank: int) -> Channels | None:
    """A layer in which each output channel sees every input channel."""
    if not step.is_plain or len(step.inputs) != 1 or step.rank != rank:
        return None
    (channels,) = step.inputs
    if channels.count != inputs:
        return None
    links.read(channels)
    group = step.node.group
    return links.own(group) if group >= 0 else staying(step.node.shape[0])


def _convolution(step: Step, links: Links) -> Channels | None:
    """Convolutions in groups stay whole: channels would have to leave all groups alike."""
    layer = step.module
    if layer.groups != 1:
        return None
    return _layer(step, links, layer.in_channels, len(layer.kernel_size) + 2)


def _depthwise(step: Step, links: Links) -> Channels | None:
    """Channel c of the output has the label of channel c of the input."""
    if not step.is_plain or step.node.group < 0 or step.inputs[0].count != step.module.in_channels:
        return None
    own = links.own(step.node.group)
    links.unite(own.labels, step.inputs[0].labels)
    return own


def _linear(step: Step, links: Links) -> Channels | None:
    """On vectors; on sequences of them the second axis is another one."""
    return _layer(step, links, step.module.in_features, 2)


def _norm(step: Step, links: Links) -> Channels | None:
    """A masked channel is 0 behind a norm that is masked too; groups of a group norm stay together."""
    norm, channels = step.module, step.inputs[0]
    if not step.is_plain or not isinstance(norm, (*CHANNEL_NORMS, nn.GroupNorm)):
        return None
    zero = channels.zero
    if isinstance(norm, nn.GroupNorm):
        labels = channels.labels.reshape(norm.num_groups, -1)
        links.unite(np.repeat(labels[:, 0], labels.shape[1]), channels.labels)
        whole = zero.reshape(labels.shape).all(axis=1)
        zero = np.repeat(whole, labels.shape[1])
    if step.is_masked:
        return Channels(channels.labels, np.ones_like(zero))
    has_tensors = bool(step.module.state_dict())
    return Channels(channels.labels, zero).after(keeps_zero=not has_tensors)


def _activation(step: Step, links: Links) -> Channels | None:
    if len(step.inputs) != 1:
        return None
    return step.inputs[0].after(keeps_zero(step.call, step.module))


def _two(step: Step, links: Links) -> Channels | None:
    """A sum or product has its terms' channels; a product is 0 if one of its factors is."""
    if len(step.inputs) != 2 or len(step.shapes[0]) != len(step.shapes[1]):
        return None
    first, second = step.inputs
    if first.count != second.count:
        return None
    links.unite(first.labels, second.labels)
    is_product = operation(step.call) in ("mul", "imul")
    zero = first.zero | second.zero if is_product else first.zero & second.zero
    return Channels(first.labels, zero)


def _pool(step: Step, links: Links) -> Channels | None:
    """Of positions, not of channels."""
    name = operation(step.call) or type(step.module).__name__.lower()
    if len(step.inputs) != 1 or step.rank < 3:
        return None
    if name in MEANS:
        axes = _numbers(argument(step.call, 1, "dim", None))
        is_spatial = bool(axes) and all(step.axis(each) >= 2 for each in axes)
    elif "pool" in name:
        is_spatial = name.endswith(f"{step.rank - 2}d")
    else:
        is_spatial = True
    return step.inputs[0] if is_spatial else None


def _pad(step: Step, links: Links) -> Channels | None:
    """Positions or channels of zeros; other values only at positions."""
    call, module, channels = step.call, step.module, step.inputs[0]
    if module is not None:
        value = getattr(module, "value", 0)
        is_spatial = len(module.padding) == 2 * (step.rank - 2)
        return channels.after(value == 0) if is_spatial else None
    mode, value = argument(call, 2, "mode", "constant"), argument(call, 3, "value", None)
    pads = padding(call, step.rank)
    if pads is None:
        return None
    channels = channels.after(mode != "constant" or not value)
    if pads == (0, 0):
        return channels
    if mode != "constant" or value or min(pads) < 0:
        return None
    return joined(links.padded(pads[0]), channels, links.padded(pads[1]))


def padding(call: fx.Node, rank: int) -> tuple[int, int] | None:
    """The channels that `functional.pad` puts before and behind; None if it pads samples.

    Args:
        call: the node.
        rank: dimensions of what is padded, with the batch.
    """
    pads = _numbers(argument(call, 1, "pad", None))
    own = pads[2 * (rank - 2) :]
    if not pads or len(own) > 2:
        return None
    return (own[0], own[1]) if own else (0, 0)


def _concat(step: Step, links: Links) -> Channels | None:
    """Along the channels."""
    parts = argument(step.call, 0, "tensors", ())
    dim = argument(step.call, 1, "dim", 0)
    is_along = isinstance(dim, int) and step.axis(dim) == 1
    is_known = isinstance(parts, Sequence) and all(isinstance(each, fx.Node) for each in parts)
    return joined(*(step.channels[each] for each in parts)) if is_along and is_known else None


def _reshape(step: Step, links: Links) -> Channels | None:
    """To vectors (each channel becomes its positions), or of positions only."""
    name = operation(step.call) or "flatten"
    channels, positions = step.inputs[0], math.prod(step.shapes[0][1:])
    if name in ("view", "reshape"):
        return channels.repeated(positions) if _to_vectors(step.call) else None
    if name == "flatten":
        first, last = _flattened(step.module or step.call)
        if step.axis(first) == 1 and step.axis(last) == step.rank - 1:
            return channels.repeated(positions)
        return channels if step.axis(first) >= 2 else None
    axes = _numbers(argument(step.call, 1, "dim", None))
    rank = step.rank + (name == "unsqueeze")
    return channels if axes and all(each % rank >= 2 for each in axes) else None


def _to_vectors(call: fx.Node) -> bool:
    """Whether a view is `x.view(batch, -1)`."""
    sizes: Any = call.args[1:]
    if len(sizes) == 1 and isinstance(sizes[0], Sequence):
        sizes = sizes[0]
    return len(sizes) == 2 and sizes[1] == -1


def _flattened(source: nn.Flatten | fx.Node) -> tuple[int, int]:
    """First and last axis that are flattened."""
    if isinstance(source, nn.Flatten):
        return source.start_dim, source.end_dim
    return argument(source, 1, "start_dim", 0), argument(source, 2, "end_dim", -1)


def _numbers(value: Any) -> tuple[int, ...]:
    """One or several integers as a tuple; () of anything else."""
    values = value if isinstance(value, Sequence) else (value,)
    return tuple(values) if all(isinstance(each, int) for each in values) else ()


RULES: Mapping[str, Rule] = {
    "conv": _convolution,
    "depthwise": _depthwise,
    "linear": _linear,
    "norm": _norm,
    "activation": _activation,
    "pool": _pool,
    "add": _two,
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
}
