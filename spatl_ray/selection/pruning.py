"""Keep ratios to channel masks: closed under coupling, at a share of the network's cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Bits
from spatl_ray.errors import ConfigError
from spatl_ray.graphs.cost import Cost
from spatl_ray.graphs.coupling import Scores, couple
from spatl_ray.graphs.graph import Graph
from spatl_ray.selection.salience import FLOOR, global_ratios

BISECTIONS = 24
"""Steps of a bisection: the factor is found to 2^-24 of its range."""

LEAST = 1e-6
"""A keep ratio at which each layer keeps one channel."""

Measure = Literal["flops", "parameters"]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pruned:
    """Channels that are kept within a budget.

    Attributes:
        bits: a closed mask, shape (channels,).
        ratios: the keep ratio of each layer that led to it, at most 1, shape (layers,).
        share: of the dense network's cost.
    """

    bits: Bits
    ratios: Values
    share: float


At = Callable[[float], Pruned]
"""What is kept at a place of a search."""


class Pruner:
    """Turns keep ratios of layers into masks that a physically smaller network can have.

    Args:
        graph: the traced network.
        measure: what a budget counts: FLOPs of one sample's inference, or parameters.

    Raises:
        ConfigError: the encoder has no prunable layer, or nothing of the network can be removed.
    """

    def __init__(self, graph: Graph, measure: Measure = "flops") -> None:
        if not graph.groups:
            raise ConfigError(
                "algorithm.selection must be false for an encoder without convolution or linear "
                "layers, got true"
            )
        self.graph = graph
        self.measure = measure
        self.coupling = couple(graph)
        self.cost = Cost(graph)
        self.layers = tuple(group.name for group in graph.groups)
        if not self.coupling.classes:
            raise ConfigError(
                "the network must have channels that can be removed, got none: every one of its "
                f"{len(self.layers)} layers passes through an operation that needs all of them"
            )

    def share(self, bits: Bits) -> float:
        """The cost of a closed mask, of the dense network's."""
        if self.measure == "flops":
            return self.cost.flops(bits) / self.cost.dense_flops
        return self.cost.parameters(bits) / self.cost.dense_parameters

    def flops_share(self, bits: Bits) -> float:
        """FLOPs of one sample's inference with a closed mask, of the dense network's."""
        return self.cost.flops(bits) / self.cost.dense_flops

    def kept(self, scores: Scores, ratios: Values) -> Pruned:
        """What given ratios keep.

        Args:
            scores: salience, shape (channels,).
            ratios: of each layer, in (0, 1], shape (layers,).
        """
        bits = self.coupling.kept(scores, dict(zip(self.layers, ratios.tolist(), strict=True)))
        return Pruned(bits, ratios, self.share(bits))

    @cached_property
    def floor(self) -> float:
        """The least share that a budget may have: every layer at the floor, with scores that are equal."""
        return self._least.share

    @cached_property
    def _least(self) -> Pruned:
        """Every layer at the floor, no channel before another."""
        return self._equal(np.zeros(len(self.coupling.labels)), FLOOR)

    def _equal(self, scores: Scores, ratio: float) -> Pruned:
        """One ratio for all layers."""
        return self.kept(scores, np.full(len(self.layers), ratio))

    def within(self, scores: Scores, importance: Values, budget: float) -> Pruned:
        """The most that fits a budget, with ratios in proportion to an importance.

        r_l = clip(s exp(u_l), FLOOR, 1) with the largest s, to bisection's precision, whose mask
        costs at most `budget` of the dense network. So only differences of u matter.

        Args:
            scores: salience, shape (channels,).
            importance: u, the logarithm of each layer's weight, shape (layers,).
            budget: share of the dense network's cost, in (0, 1].

        Raises:
            ConfigError: the budget is below the floor of all layers.
        """

        def at(log_factor: float) -> Pruned:
            ratios = np.exp(np.clip(importance + log_factor, np.log(FLOOR), 0.0))
            return self.kept(scores, ratios)

        low, high = np.log(FLOOR) - float(importance.max()), -float(importance.min())
        return self._largest(at, low, high, scores, budget)

    def over_all(self, scores: Scores, keep: float) -> Pruned:
        """The channels of the highest scores over all layers.

        Args:
            scores: salience, shape (channels,).
            keep: share of all channels.
        """
        ratios = global_ratios(self.graph.groups, scores, keep, FLOOR)
        return self.kept(scores, np.array([ratios[name] for name in self.layers]))

    def threshold(self, scores: Scores, budget: float) -> Pruned:
        """The channels of the highest scores over all layers, as many as fit a budget.

        Args:
            scores: salience, shape (channels,).
            budget: share of the dense network's cost, in (0, 1].

        Raises:
            ConfigError: the budget is below the floor of all layers.
        """
        return self._largest(lambda k: self.over_all(scores, k), 0.0, 1.0, scores, budget)

    def _largest(self, at: At, low: float, high: float, scores: Scores, budget: float) -> Pruned:
        """The largest place in [low, high] that fits.

        Raises:
            ConfigError: the budget is below the floor of all layers.
        """
        if budget < self.floor:
            raise ConfigError(
                f"a budget of {self.measure} must be at least {self.floor:.4f} of the dense network's, "
                f"which is every layer at a keep ratio of {FLOOR:g}, got {budget:g}"
            )
        return _bisected(at, low, high, budget) or self._below_floor(scores, budget)

    def _below_floor(self, scores: Scores, budget: float) -> Pruned:
        """What fits where coupled layers' scores disagree so much that they keep more than the floor.

        Equal ratios below it; if a channel a layer is too much still, the floor's own channels.
        """
        found = _bisected(lambda ratio: self._equal(scores, ratio), LEAST, FLOOR, budget)
        return found or self._least


def _bisected(at: At, low: float, high: float, budget: float) -> Pruned | None:
    """What is kept at the largest place that fits, if one does; the cost rises with the place."""
    whole = at(high)
    if whole.share <= budget:
        return whole
    best = at(low)
    if best.share > budget:
        return None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        tried = at(middle)
        if tried.share <= budget:
            best, low = tried, middle
        else:
            high = middle
    return best
