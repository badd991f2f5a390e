"""The seam where a selection policy plugs in, and the policy of fixed keep ratios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from spatl_ray.arrays import Bits
from spatl_ray.config import Inference, KeepSchedule
from spatl_ray.errors import ConfigError
from spatl_ray.parameters import Arrays, Space
from spatl_ray.selection.budget import largest_within
from spatl_ray.selection.candidate import Candidate
from spatl_ray.selection.criteria import Criterion, make_criterion
from spatl_ray.selection.pruning import Pruned, Pruner
from spatl_ray.selection.salience import (
    Scores,
    global_ratios,
    keep_most_salient,
    layer_ratios,
    scheduled,
)

__all__ = ["Candidate", "FixedRatio", "KeptForInference", "Selection", "Selector"]


@dataclass(frozen=True, eq=False)
class Selection:
    """A selector's decision.

    Attributes:
        travel: channels whose update is sent, shape (space.channels,).
        inference: channels kept for inference, or None if that is not asked.
        state: the selector's new arrays, which become part of the client's state.
        inference_flops: of the network with the channels kept for inference, as a share of the dense one's.
        reward: accuracy of that network on the client's validation sample, if it was measured.
        evaluations: how many networks were scored for the decision.
    """

    travel: Bits
    inference: Bits | None = None
    state: Arrays = field(default_factory=dict)
    inference_flops: float | None = None
    reward: float | None = None
    evaluations: int = 0


class Selector(Protocol):
    """Decides what travels.

    Attributes:
        flops_floor: least budget of a client's FLOPs, as a share of the dense network's; 0 if nothing
            is kept for inference.
    """

    flops_floor: float

    def start(self) -> Arrays:
        """The selector's arrays in the state of a client that never trained."""

    def select(self, candidate: Candidate) -> Selection:
        """Decide for one client; the same input gives the same decision."""


def travelling(candidate: Candidate, scores: Scores, ratios: Mapping[str, float]) -> Bits:
    """The highest scores of each layer, as far as their update fits the client's bytes.

    If it does not, all ratios are scaled down by one factor, to not less than one channel a layer.

    Raises:
        ConfigError: too few bytes for one channel a layer.
    """

    def kept(factor: float) -> Bits:
        scaled = {name: factor * ratio for name, ratio in ratios.items()}
        return keep_most_salient(candidate.space, scores, scaled)

    return largest_within(candidate, ratios, kept)


class KeptForInference:
    """What a fixed ratio, or a budget of FLOPs at equal ratios, keeps for inference.

    Args:
        inference: share, budget and salience.
        pruner: of the network.
        over_all: whether channels of all layers compete.

    Raises:
        ConfigError: a criterion that cannot be loaded, or a budget below the floor of all layers.
    """

    def __init__(self, inference: Inference, pruner: Pruner, over_all: bool = False) -> None:
        self.pruner = pruner
        self._inference = inference
        self._over_all = over_all
        self._criterion: Criterion = make_criterion(
            inference.criterion, "algorithm.inference.criterion"
        )
        if inference.flops is not None and inference.flops < pruner.floor:
            raise ConfigError(
                f"algorithm.inference.flops must be at least {pruner.floor:.4f}, which every layer at its "
                f"least keep ratio costs, got {inference.flops:g}"
            )

    def of(self, candidate: Candidate) -> Pruned:
        """The channels that one client keeps."""
        scores = self._criterion(candidate)
        budgets = [self._inference.flops, candidate.budget_flops]
        budget = min(b for b in (*budgets, 1.0) if b is not None)
        if self._inference.flops is None:
            kept = self._at(scores, self._inference.keep)
            if self.pruner.flops_share(kept.bits) <= budget:
                return kept
        if self._over_all:
            return self.pruner.threshold(scores, budget)
        return self.pruner.within(scores, np.zeros(len(self.pruner.layers)), budget)

    def _at(self, scores: Scores, keep: float) -> Pruned:
        """What a share of the channels keeps."""
        if self._over_all:
            return self.pruner.over_all(scores, keep)
        return self.pruner.kept(scores, np.full(len(self.pruner.layers), keep))


class FixedRatio:
    """Keep a fixed share of the channels, the most salient ones of each layer or of all layers together.

    What is kept for inference is closed under coupling, and costs at most `inference.flops` and the
    client's own budget of the dense network's FLOPs.

    Args:
        space: the shared parameters.
        keep: share of each layer's channels that travels, or of all channels.
        keep_layers: own shares by layer name.
        criterion: salience of what travels: a name in CRITERIA, or a dotted one.
        over_all: whether channels of all layers compete; each layer keeps at least the floor.
        kept: what is kept for inference, or None.
        schedule: of the ratios of what travels over rounds, or None.

    Raises:
        ConfigError: the encoder has no prunable layer, `keep_layers` names an unknown one, or a
            criterion cannot be loaded.
    """

    def __init__(
        self,
        space: Space,
        keep: float,
        keep_layers: Mapping[str, float],
        criterion: str,
        over_all: bool = False,
        kept: KeptForInference | None = None,
        schedule: KeepSchedule | None = None,
    ) -> None:
        if not space.groups:
            raise ConfigError(
                "algorithm.selection must be false for an encoder without convolution or linear "
                "layers, got true"
            )
        self._keep = keep
        self._ratios = layer_ratios(space, keep, keep_layers)
        self._over_all = over_all
        self._criterion = make_criterion(criterion, "algorithm.criterion")
        self._kept = kept
        self._schedule = schedule
        self.flops_floor = 0.0 if kept is None else kept.pruner.floor

    def start(self) -> Arrays:
        """Nothing: a fixed ratio learns nothing."""
        return {}

    def select(self, candidate: Candidate) -> Selection:
        """The most salient channels.

        Raises:
            ConfigError: scores that cannot be ordered, too few bytes for one channel a layer, or too
                few FLOPs for the floor of each.
        """
        scores, round_ = self._criterion(candidate), candidate.round
        if self._over_all:
            keep = scheduled(self._schedule, self._keep, round_)
            ratios = global_ratios(candidate.space.groups, scores, keep)
        else:
            ratios = {n: scheduled(self._schedule, r, round_) for n, r in self._ratios.items()}
        travel = travelling(candidate, scores, ratios)
        if self._kept is None:
            return Selection(travel)
        pruned = self._kept.of(candidate)
        return Selection(
            travel, pruned.bits, inference_flops=self._kept.pruner.flops_share(pruned.bits)
        )
