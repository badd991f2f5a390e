"""The seam where a selection policy plugs in, and the policy of fixed keep ratios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from spatl_ray.config import Inference
from spatl_ray.errors import ConfigError
from spatl_ray.parameters import Arrays, Bits, Space
from spatl_ray.selection.budget import largest_within
from spatl_ray.selection.candidate import Candidate
from spatl_ray.selection.criteria import make_criterion
from spatl_ray.selection.salience import keep_most_salient, layer_ratios

__all__ = ["Candidate", "FixedRatio", "Selection", "Selector"]


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
    """Keep a fixed share of each layer's channels, the most salient ones, as far as they fit.

    If the update of the shares would be more bytes than the client may send, all shares are scaled
    down by one factor, to not less than one channel a layer.

    What is kept for inference is `inference.keep` of each layer, or the client's share of the
    dense encoder's FLOPs if that is less. A layer's FLOPs are in proportion to its own channels, and
    fall further with those of the layer before; so the encoder then costs at most that share, up to
    the rounding of channels, and not less than one a layer.

    Args:
        space: the shared parameters.
        keep: share of each layer's channels that travels.
        keep_layers: own shares by layer name.
        criterion: salience of what travels: a name in CRITERIA, or a dotted one.
        inference: share and salience of what is kept for inference, or None.

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
        inference: Inference | None,
    ) -> None:
        if not space.groups:
            raise ConfigError(
                "algorithm.selection must be false for an encoder without convolution or linear "
                "layers, got true"
            )
        self._ratios = layer_ratios(space, keep, keep_layers)
        self._criterion = make_criterion(criterion, "algorithm.criterion")
        self._inference = inference
        if inference is not None:
            self._inference_criterion = make_criterion(
                inference.criterion, "algorithm.inference.criterion"
            )

    def start(self) -> Arrays:
        """Nothing: a fixed ratio learns nothing."""
        return {}

    def select(self, candidate: Candidate) -> Selection:
        """The most salient channels of each layer.

        Raises:
            ConfigError: scores that cannot be ordered, or too few bytes for one channel a layer.
        """
        return Selection(self._travelling(candidate), self._kept_for_inference(candidate))

    def _travelling(self, candidate: Candidate) -> Bits:
        """What is sent."""
        scores = self._criterion(candidate)

        def kept(factor: float) -> Bits:
            ratios = {name: factor * ratio for name, ratio in self._ratios.items()}
            return keep_most_salient(candidate.space, scores, ratios)

        return largest_within(candidate, self._ratios, kept)

    def _kept_for_inference(self, candidate: Candidate) -> Bits | None:
        """What is kept for inference, if that is asked."""
        if self._inference is None:
            return None
        share = self._inference.keep
        if candidate.budget_flops is not None:
            share = min(share, candidate.budget_flops)
        scores = self._inference_criterion(candidate)
        return keep_most_salient(candidate.space, scores, dict.fromkeys(self._ratios, share))
