"""What the agent sees of a network: numbers about each operation, and which reads from which.

Figures of size and salience are relative to the network's prunable layers: an agent that learnt on one
network meets others of quite different width and depth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spatl_ray.graphs.coupling import Scores
from spatl_ray.graphs.graph import KINDS, Graph, Node
from spatl_ray.parameters import Array, Space
from spatl_ray.selection.pruning import Pruner, Values

FEATURES = len(KINDS) + 21
"""Numbers about a node."""

FEATURES_VERSION = 2
"""Changes with their meaning: weights of another version see other numbers."""

KEPT = (0.25, 0.5, 0.75)
"""Shares of a layer's channels, for the salience that the best of them hold."""

WEAK = 0.3
"""A channel is weak below this share of its layer's mean."""

FARTHEST = 3.0
"""Standard deviations from a network's mean beyond which figures are alike."""

Table = npt.NDArray[np.float32]


class Topology:
    """Which operation reads from which, as averages over a node's inputs and over its readers.

    Args:
        graph: the traced network.

    Attributes:
        inputs: shape (nodes, nodes), rows sum to 1, or to 0 without inputs.
        readers: the same along the arrows.
        layers: the node of each prunable layer, shape (layers,).
    """

    def __init__(self, graph: Graph) -> None:
        reads = np.zeros((len(graph.nodes), len(graph.nodes)), np.float32)
        for index, node in enumerate(graph.nodes):
            reads[index, list(node.inputs)] = 1
        self.inputs = _averaging(reads)
        self.readers = _averaging(reads.T)
        self.layers = torch.from_numpy(_layer_nodes(graph))


def _averaging(reads: Table) -> Tensor:
    return torch.from_numpy(reads / np.maximum(reads.sum(axis=1, keepdims=True), 1))


def _layer_nodes(graph: Graph) -> npt.NDArray[np.int64]:
    """The first node of each channel group; a layer that the trace does not show stands for none."""
    place = {node.group: index for index, node in reversed(list(enumerate(graph.nodes)))}
    return np.array([place.get(group, 0) for group in range(len(graph.groups))], np.int64)


class Features:
    """Numbers about the nodes of one network: the same for all values, then of its values.

    Args:
        pruner: of the network.
        space: the shared parameters, with the same channel groups.
    """

    def __init__(self, pruner: Pruner, space: Space) -> None:
        self.graph = pruner.graph
        self.groups = pruner.graph.groups
        self.space = space
        self.topology = Topology(self.graph)
        self._layers = self.topology.layers.numpy()
        self._fixed = np.zeros((len(self.graph.nodes), FEATURES), np.float32)
        windows = np.array([_window_figures(node) for node in self.graph.nodes])
        sizes = np.array([_size_figures(node) for node in self.graph.nodes])
        sizes = _relative(np.concatenate([sizes, _cost_figures(self.graph)], axis=1), self._layers)
        fixed = np.concatenate([_one_hot(self.graph), windows, sizes], axis=1)
        self._fixed[:, : fixed.shape[1]] = fixed
        self._next = fixed.shape[1]
        self._set(self._fixed, _relative(_coupling_figures(pruner)))

    def of(self, scores: Scores, weights: Array, ratios: Values, budget: float) -> Tensor:
        """The features, shape (nodes, FEATURES).

        Args:
            scores: salience, shape (channels,).
            weights: the shared parameters, shape (space.size,).
            ratios: keep ratio of each layer so far, shape (layers,).
            budget: share of the dense network's cost.
        """
        table = self._fixed.copy()
        figures = [
            [*_spread(scores[g.offset : g.offset + g.channels]), *_spread(scale)[:3]]
            for g, scale in zip(self.groups, self._norm_scales(weights), strict=True)
        ]
        own = np.column_stack([_relative(np.array(figures)), np.log(ratios)])
        self._set(table, own, self._next + 3)
        table[:, -1] = np.log(budget)
        return torch.from_numpy(table)

    def _set(self, table: Table, figures: Values, start: int | None = None) -> None:
        """Write figures of the layers, shape (layers, n), into their nodes' rows."""
        first = self._next if start is None else start
        table[self._layers, first : first + figures.shape[1]] = figures

    def _norm_scales(self, weights: Array) -> list[Array]:
        """The scales of the normalisation behind each layer; no numbers without one."""
        scales: list[Array] = [np.zeros(0)] * len(self.groups)
        for segment in self.space.segments:
            path, _, name = segment.name.rpartition(".")
            if name == "weight" and path in self.graph.followers:
                scales[self.graph.followers[path]] = weights[segment.span]
        return scales


def _one_hot(graph: Graph) -> Table:
    """The kind of each node, shape (nodes, len(KINDS))."""
    table = np.zeros((len(graph.nodes), len(KINDS)), np.float32)
    for row, node in zip(table, graph.nodes, strict=True):
        row[KINDS.index(node.kind)] = 1
    return table


def _relative(figures: Values, reference: npt.NDArray[np.int64] | None = None) -> Values:
    """Figures in standard deviations from the mean, each column by its own; 0 where all are alike.

    Args:
        figures: shape (rows, columns).
        reference: the rows that give mean and deviation; None takes all.
    """
    known = figures if reference is None else figures[reference]
    relative: Values = (figures - known.mean(axis=0)) / (known.std(axis=0) + 1e-3)
    return relative.clip(-FARTHEST, FARTHEST)


def _window_figures(node: Node) -> list[float]:
    """Kernel and stride, on scales near 1."""
    return [max(node.kernel, default=0) / 7, np.log2(max(node.stride, default=1))]


def _size_figures(node: Node) -> list[float]:
    """Channels and positions of a node's output, as logarithms."""
    channels = node.shape[0] if node.shape else 1
    positions = int(np.prod(node.shape[1:], dtype=np.int64)) if node.shape else 1
    return [np.log2(max(channels, 1)), np.log2(max(positions, 1))]


def _cost_figures(graph: Graph) -> Values:
    """Root of a node's share of FLOPs and parameters, and its depth in [0, 1]; shape (nodes, 3)."""
    depth = np.zeros(len(graph.nodes))
    for index, node in enumerate(graph.nodes):
        depth[index] = 1 + max((depth[i] for i in node.inputs), default=-1)
    flops = np.array([node.flops for node in graph.nodes])
    parameters = np.array([float(node.parameters) for node in graph.nodes])
    shares = [np.sqrt(figure / max(figure.sum(), 1)) for figure in (flops, parameters)]
    return np.column_stack([*shares, depth / max(depth.max(), 1)])


def _coupling_figures(pruner: Pruner) -> Values:
    """How far a layer's channels are free, how many others are tied to each, and what halving it saves."""
    coupling = pruner.coupling
    members = np.append(coupling.members, 1)
    none, rows = np.zeros(len(coupling.labels)), []
    for index, group in enumerate(coupling.groups):
        labels = coupling.labels[group.offset : group.offset + group.channels]
        ratios = np.ones(len(coupling.groups))
        ratios[index] = 0.5
        saved = 1 - pruner.kept(none, ratios).share
        rows.append([(labels >= 0).mean(), np.log2(members[labels].mean()) / 3, np.sqrt(saved)])
    return np.array(rows)


def _spread(values: Array) -> list[float]:
    """How unequal the values of a layer's channels are; zeros for none.

    The coefficient of variation, the share of weak ones, the logarithm of the mean, and the share
    of the sum of squares that the largest 25, 50 and 75 % hold.
    """
    if not len(values):
        return [0.0] * (3 + len(KEPT))
    size = np.sort(np.abs(values.astype(np.float64)))[::-1]
    mean, energy = size.mean() + 1e-12, np.cumsum(size**2) + 1e-12
    held = [energy[max(1, round(share * len(size))) - 1] / energy[-1] for share in KEPT]
    weak = float((size < WEAK * mean).mean())
    return [size.std() / mean, weak, np.log(mean) / 5, *held]
