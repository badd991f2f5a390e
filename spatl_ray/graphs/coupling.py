"""Which channels can only be removed together, so that a smaller network gives the same outputs.

A channel mask sets the weights and biases of a layer's channels to 0, and those of the normalisation
behind it. What it masks can be left out of the network if nothing else is missing there: a sum needs
the same channels in both terms, a depthwise convolution those of its input. Each channel of each
tensor has a label; channels of one label are kept or removed together, those of label -1 stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import fx

from spatl_ray.arrays import Bits
from spatl_ray.errors import ModelError
from spatl_ray.graphs.flow import STAYS, Channels, Labels, Links, staying, steps
from spatl_ray.graphs.graph import Graph
from spatl_ray.graphs.rules import outputs
from spatl_ray.parameters import ChannelGroup

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Coupling:
    """The channels that belong together.

    Attributes:
        labels: shape (channels of all groups,): 0, 1, ... by first appearance, -1 must stay.
        groups: the channel groups.
        tensors: for each node of the graph the labels of its output's channels (its second axis).
    """

    labels: Labels
    groups: tuple[ChannelGroup, ...]
    tensors: tuple[Labels, ...] = field(repr=False)

    @cached_property
    def classes(self) -> int:
        """Number of labels, -1 aside."""
        return int(self.labels.max(initial=-1)) + 1

    def kept(self, scores: Scores, ratios: Mapping[str, float]) -> Bits:
        """Channels kept at a ratio a layer; channels that belong together vote.

        With r the ratio of a layer of C channels, its channel of rank k (by score, the best has 0,
        ties go to the lower index) votes (r C - 1/2 - k) / C. A class is kept if the mean vote of its
        members is not negative. Of each layer the class of the best mean rank k / C stays whatever
        the ratios, so that a larger ratio never drops a channel. A layer that is coupled with nothing
        keeps its r C best channels, to the nearest (half up), at least one.

        Args:
            scores: shape (channels of all groups,).
            ratios: keep ratio in (0, 1] by layer name, one for every group.

        Returns:
            A closed mask, shape (channels of all groups,).
        """
        if not self.groups:
            return np.zeros(0, dtype=np.bool_)
        layer, sizes = self._layers
        order, rank = self._ranks(scores)
        ratio = np.array([ratios[group.name] for group in self.groups])
        # In this order int(r C + 1/2) channels of an uncoupled layer vote >= 0, to the last bit.
        votes = ((ratio * sizes + 0.5)[layer] - (rank + 1)) / sizes[layer]
        kept = np.append(self._means(votes) >= 0, True)
        best = self._best(order, rank)
        kept[self.labels[best]] = True
        return np.asarray(kept[self.labels])

    def closed(self, bits: Bits) -> Bits:
        """The smallest mask that keeps a class if any of its members is kept, and what must stay.

        Args:
            bits: shape (channels of all groups,).
        """
        return np.asarray(self.classes_of(bits)[self.labels])

    def classes_of(self, bits: Bits) -> Bits:
        """Whether each label is kept, shape (classes + 1,): the last one is that of label -1.

        Raises:
            ModelError: bits of another shape.
        """
        if bits.shape != self.labels.shape:
            raise ModelError(
                f"bits must have one value a channel, shape {self.labels.shape}, got {bits.shape}"
            )
        kept = np.zeros(self.classes + 1, dtype=np.bool_)
        kept[self.labels[bits]] = True
        kept[-1] = True
        return kept

    @cached_property
    def _layers(self) -> tuple[Labels, Labels]:
        """The layer of each channel, and the number of channels of each layer."""
        sizes = np.array([group.channels for group in self.groups], dtype=np.int64)
        return np.repeat(np.arange(len(sizes)), sizes), sizes

    @cached_property
    def members(self) -> Labels:
        """Number of group channels of each class."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.classes)

    @cached_property
    def _starts(self) -> Labels:
        """The first channel of each layer."""
        return np.array([group.offset for group in self.groups], dtype=np.int64)

    def _ranks(self, scores: Scores) -> tuple[Labels, Labels]:
        """The channels layer by layer, the highest score first; and each one's rank, from 0."""
        layer, _ = self._layers
        order = np.lexsort((-scores, layer))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - self._starts[layer]
        return order, rank

    def _best(self, order: Labels, rank: Labels) -> Labels:
        """A channel of each layer: of the best class by mean rank, one that must stay before all others."""
        layer, sizes = self._layers
        standing = np.append(self._means(rank / sizes[layer]), -1.0)[self.labels]
        is_best = standing == np.minimum.reduceat(standing, self._starts)[layer]
        first = np.minimum.reduceat(np.where(is_best, rank, len(rank)), self._starts)
        return np.asarray(order[self._starts + first])

    def _means(self, values: Scores) -> Scores:
        """The mean of each class's values."""
        free = self.labels >= 0
        sums = np.bincount(self.labels[free], values[free], self.classes)
        return np.asarray(sums / self.members)


def couple(graph: Graph) -> Coupling:
    """The coupling of a network's channels.

    Args:
        graph: the traced network.
    """
    links = Links(graph)
    tensors = _pass(graph, links)
    component = _components(links.labels, np.concatenate(links.pairs, axis=1))
    groups = component[1 : 1 + sum(group.channels for group in graph.groups)]
    number = _numbers(component, groups)
    return Coupling(number[groups], graph.groups, tuple(number[component[t]] for t in tensors))


def _pass(graph: Graph, links: Links) -> list[Labels]:
    """Follow the channels through the network; the labels of each node's output.

    What no rule understands must stay: what it reads and gives, and the groups of its layers.
    """
    channels: dict[fx.Node, Channels] = {}
    understood = set()
    for step in steps(graph, channels):
        found = outputs(step, links)
        if found is None:
            for each in step.inputs:
                links.stay(each.labels)
            # A parameter has no samples, so its second axis is not the channels.
            is_batch = bool(step.node.shape) and step.call.op != "get_attr"
            found = staying(step.node.shape[0] if is_batch else 0)
        else:
            understood.add(step.node.group)
        channels[step.call] = found
    for group in set(range(len(graph.groups))) - understood:
        links.stay(links.own(group).labels)
    return [each.labels for each in channels.values()]


def _components(labels: int, pairs: Labels) -> Labels:
    """The smallest label that each label is tied to, directly or not, shape (labels,)."""
    least = np.arange(labels)
    while True:
        before = least.copy()
        ends = least[pairs]
        for each in ends:
            np.minimum.at(least, each, ends.min(axis=0))
        least = least[least]
        if np.array_equal(least, before):
            return least


def _numbers(component: Labels, groups: Labels) -> Labels:
    """The label of each component: by first appearance in the groups, -1 for what must stay.

    A component without channels of a group (zeros that were padded on) cannot be chosen: it stays.
    """
    number = np.full(int(component.max()) + 1, -1, dtype=np.int64)
    found, first = np.unique(groups, return_index=True)
    ordered = found[np.argsort(first)]
    ordered = ordered[ordered != component[STAYS]]
    number[ordered] = np.arange(len(ordered))
    return number
