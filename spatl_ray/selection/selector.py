"""The seam where a selection policy plugs in, and the policy of fixed keep ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from spatl_ray.config import Criterion, Inference
from spatl_ray.errors import ConfigError
from spatl_ray.parameters import Array, Arrays, Bits, ModelVector, Space
from spatl_ray.selection.salience import keep_most_salient, layer_ratios, salience
from spatl_ray.training.evaluate import Score


@dataclass(frozen=True, eq=False)
class Candidate:
    """What a selector decides on: one client's encoder after local training.

    Attributes:
        client, round: whose decision, and when.
        space: the shared parameters, with their channel groups.
        model: the whole local model.
        update: shape (space.size,), what would be sent densely.
        state: the client's state; a selector's own arrays are in it.
        validate: scores a model on the client's own validation split; None if that is empty.
        generator: the only source of randomness of the decision.
    """

    client: int
    round: int
    space: Space
    model: ModelVector
    update: Array
    state: Arrays
    validate: Callable[[ModelVector], Score | None]
    generator: np.random.Generator

    @property
    def weights(self) -> Array:
        """The encoder's weights, shape (space.size,)."""
        return self.model.parameters[: self.space.size]


@dataclass(frozen=True, eq=False)
class Selection:
    """A selector's decision.

    Attributes:
        travel: channels whose update is sent, shape (space.channels,).
        inference: channels kept for inference, or None if that is not asked.
        state: the selector's new arrays, which become part of the client's state.
    """

    travel: Bits
    inference: Bits | None = None
    state: Arrays = field(default_factory=dict)


class Selector(Protocol):
    """Decides what travels."""

    def start(self) -> Arrays:
        """The selector's arrays in the state of a client that never trained."""

    def select(self, candidate: Candidate) -> Selection:
        """Decide for one client; the same input gives the same decision."""


class FixedRatio:
    """Keep a fixed share of each layer's channels, the most salient ones.

    Args:
        space: the shared parameters.
        keep: share of each layer's channels that travels.
        keep_layers: own shares by layer name.
        criterion: salience of what travels.
        inference: share and salience of what is kept for inference, or None.

    Raises:
        ConfigError: the encoder has no prunable layer, or `keep_layers` names an unknown one.
    """

    def __init__(
        self,
        space: Space,
        keep: float,
        keep_layers: Mapping[str, float],
        criterion: Criterion,
        inference: Inference | None,
    ) -> None:
        if not space.groups:
            raise ConfigError(
                "algorithm.selection must be false for an encoder without convolution or linear "
                "layers, got true"
            )
        self._ratios = layer_ratios(space, keep, keep_layers)
        self._criterion: Criterion = criterion
        self._inference = inference

    def start(self) -> Arrays:
        """Nothing: a fixed ratio learns nothing."""
        return {}

    def select(self, candidate: Candidate) -> Selection:
        """The most salient channels of each layer."""
        travel = self._bits(candidate, self._criterion, self._ratios)
        if self._inference is None:
            return Selection(travel)
        ratios = dict.fromkeys(self._ratios, self._inference.keep)
        return Selection(travel, self._bits(candidate, self._inference.criterion, ratios))

    def _bits(
        self, candidate: Candidate, criterion: Criterion, ratios: Mapping[str, float]
    ) -> Bits:
        scores = salience(candidate.space, criterion, candidate.weights, candidate.update)
        return keep_most_salient(candidate.space, scores, ratios)
