"""How channels pass through a network: which label each has, and whether a masked one is 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import fx, nn

from spatl_ray.arrays import Bits
from spatl_ray.graphs.graph import Graph, Node
from spatl_ray.graphs.operations import (
    CHANNEL_NORMS,
    CONVOLUTIONS,
    is_in_place,
    is_read_elsewhere,
)

Labels = npt.NDArray[np.int64]
STAYS = 0
"""The label of channels that must stay."""
NARROWED = (*CONVOLUTIONS, nn.Linear, *CHANNEL_NORMS, nn.GroupNorm)
"""Modules of which a smaller network has smaller ones."""


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor: its second axis.

    Attributes:
        labels: shape (channels,).
        zero: whether a channel is 0 wherever a mask removes its label, shape (channels,).
    """

    labels: Labels
    zero: Bits

    @property
    def count(self) -> int:
        """Number of channels."""
        return len(self.labels)

    def after(self, keeps_zero: bool) -> Channels:
        """The same channels behind an elementwise operation."""
        return self if keeps_zero else Channels(self.labels, np.zeros_like(self.zero))

    def repeated(self, positions: int) -> Channels:
        """Each channel as that many features."""
        return Channels(np.repeat(self.labels, positions), np.repeat(self.zero, positions))


def joined(*parts: Channels) -> Channels:
    """Channels behind each other."""
    labels, zero = [each.labels for each in parts], [each.zero for each in parts]
    return Channels(np.concatenate(labels), np.concatenate(zero))


def staying(count: int) -> Channels:
    """Channels that must stay."""
    return Channels(np.full(count, STAYS), np.zeros(count, dtype=np.bool_))


class Links:
    """The labels there are, and which of them are the same.

    Label 0 stays; then come the channels of the groups, in their order; then padded channels.

    Attributes:
        labels: number of labels.
        pairs: arrays of shape (2, n) of labels that are the same.
    """

    def __init__(self, graph: Graph) -> None:
        self._groups = graph.groups
        self.labels = 1 + sum(group.channels for group in graph.groups)
        self.pairs: list[Labels] = [np.zeros((2, 1), dtype=np.int64)]

    def own(self, group: int) -> Channels:
        """The channels of a group: a mask makes them 0."""
        first = 1 + self._groups[group].offset
        return self._zeros(np.arange(first, first + self._groups[group].channels))

    def padded(self, count: int) -> Channels:
        """New channels that are 0."""
        self.labels += count
        return self._zeros(np.arange(self.labels - count, self.labels))

    def unite(self, some: Labels, others: Labels) -> None:
        """Keep or remove two arrays of labels pair by pair together."""
        self.pairs.append(np.stack([some, others]))

    def stay(self, labels: Labels) -> None:
        """Let labels stay."""
        self.unite(labels, np.full_like(labels, STAYS))

    def read(self, channels: Channels) -> None:
        """A layer's input: what a mask does not make 0 must stay, or its constants would be missing."""
        self.stay(channels.labels[~channels.zero])

    def _zeros(self, labels: Labels) -> Channels:
        return Channels(labels, np.ones(len(labels), dtype=np.bool_))


@dataclass(frozen=True, eq=False)
class Step:
    """One node, with what flows into it.

    Attributes:
        node: the operation.
        call: its node in torch.fx's graph.
        module: the module it calls, or None.
        channels: of the nodes before it.
        shapes: of what it reads, for one sample.
        is_plain: its module is a torch.nn layer that is used here only, with tensors of its own.
        is_masked: its module is a normalisation whose weight and bias are under a layer's mask.
        overwrites: it changes a tensor in place that others read too.
    """

    node: Node
    call: fx.Node
    module: Any
    channels: Mapping[fx.Node, Channels]
    shapes: tuple[tuple[int, ...], ...]
    is_plain: bool
    is_masked: bool
    overwrites: bool

    @property
    def inputs(self) -> tuple[Channels, ...]:
        """The channels of each node it reads."""
        return tuple(self.channels[each] for each in self.call.all_input_nodes)

    @property
    def rank(self) -> int:
        """Dimensions of its first input, with the batch."""
        return len(self.shapes[0]) + 1

    def axis(self, dim: int) -> int:
        """A dimension of its first input, counted from the first."""
        return dim % self.rank


def steps(graph: Graph, channels: Mapping[fx.Node, Channels]) -> list[Step]:
    """The steps of a graph; `channels` is filled while they are taken."""
    modules: Mapping[str, nn.Module] = dict(graph.module.named_modules())
    plain = _plain(graph, modules)
    return [
        Step(
            node=node,
            call=call,
            module=None if node.module is None else modules[node.module],
            channels=channels,
            shapes=tuple(graph.nodes[i].shape for i in node.inputs),
            is_plain=node.module in plain,
            is_masked=node.module in graph.followers,
            overwrites=_overwrites(call, modules),
        )
        for node, call in zip(graph.nodes, graph.module.graph.nodes, strict=True)
    ]


def _overwrites(call: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node changes a tensor in place that others read too."""
    module = modules[str(call.target)] if call.op == "call_module" else None
    inputs = call.all_input_nodes
    return is_in_place(call, module) and any(is_read_elsewhere(i, modules) for i in inputs[:1])


def _plain(graph: Graph, modules: Mapping[str, nn.Module]) -> set[str]:
    """Paths of the layers of torch.nn that are called once and share no tensor with anything else."""
    calls = Counter(node.module for node in graph.nodes if node.module is not None)
    uses = Counter(id(tensor) for path in calls for tensor in _tensors(modules[path]))
    for call in graph.module.graph.nodes:
        if call.op == "get_attr":
            path, _, name = str(call.target).rpartition(".")
            uses[id(getattr(modules[path], name))] += 1
    return {
        path
        for path, count in calls.items()
        if count == 1
        and _is_bare(modules[path])
        and all(uses[id(tensor)] == 1 for tensor in _tensors(modules[path]))
    }


def _tensors(module: nn.Module) -> list[Any]:
    return [*module.parameters(), *module.buffers()]


def _is_bare(module: nn.Module) -> bool:
    """A layer as torch.nn has it, without hooks, computed weights or parameters of another kind."""
    own = module._parameters
    has_weight = own.get("weight") is not None or not isinstance(module, (*CONVOLUTIONS, nn.Linear))
    hooks = (*module._forward_hooks, *module._forward_pre_hooks)
    return (
        type(module) in NARROWED and has_weight and own.keys() <= {"weight", "bias"} and not hooks
    )
