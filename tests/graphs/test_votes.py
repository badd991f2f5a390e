"""Closed masks, and the votes of channels that belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_models import NETWORKS, Traced, case, network
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spatl_ray.errors import ModelError
from spatl_ray.graphs.coupling import Coupling
from spatl_ray.parameters import ChannelGroup
from spatl_ray.selection.salience import keep_most_salient

# --- closed masks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_closed_is_the_smallest_consistent_superset(
    name: str, options: dict[str, Any], seed: int
) -> None:
    coupling = case(name, options).coupling
    bits = np.random.default_rng(seed).random(len(coupling.labels)) < 0.2
    closed = coupling.closed(bits)
    kept = set(coupling.labels[bits]) | {-1}
    assert closed.tolist() == [label in kept for label in coupling.labels]
    assert np.array_equal(coupling.closed(closed), closed)


def test_what_must_stay_is_kept_by_an_empty_mask() -> None:
    coupling = Coupling(np.array([0, -1, 1, -1]), (ChannelGroup("a", 4, 0),), ())
    assert coupling.closed(np.zeros(4, dtype=np.bool_)).tolist() == [False, True, False, True]


def test_a_mask_of_another_length_is_refused() -> None:
    text = r"^bits must have one value a channel, shape \(22,\), got \(3,\)$"
    with pytest.raises(ModelError, match=text):
        network("lenet").coupling.closed(np.ones(3, dtype=np.bool_))


# --- votes ----------------------------------------------------------------------------------------


def ratios_of(case: Traced, draw: np.random.Generator) -> dict[str, float]:
    return {g.name: float(draw.uniform(0.01, 1)) for g in case.graph.groups}


@given(
    hnp.arrays(np.float64, 22, elements=st.integers(0, 5)), st.floats(0.001, 1), st.floats(0.001, 1)
)
def test_uncoupled_layers_keep_their_most_salient_channels(
    scores: np.ndarray, first: float, second: float
) -> None:
    case = network("lenet")
    ratios = {"encoder.0": first, "encoder.3": second}
    expected = keep_most_salient(case.model.layout.shared, scores, ratios)
    assert np.array_equal(case.coupling.kept(scores, ratios), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 64, 512])
def test_halves_are_rounded_up_like_elsewhere(channels: int) -> None:
    coupling = Coupling(np.arange(channels), (ChannelGroup("a", channels, 0),), ())
    scores = np.zeros(channels)
    for count in range(2 * channels + 1):
        ratio = max(count, 1) / (2 * channels)
        kept = coupling.kept(scores, {"a": ratio})
        assert kept.sum() == max(1, int(ratio * channels + 0.5))
        assert kept.tolist() == sorted(kept.tolist(), reverse=True)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8)
def test_the_laws_of_votes(name: str, options: dict[str, Any], seed: int) -> None:
    own, draw = case(name, options), np.random.default_rng(seed)
    coupling = own.coupling
    scores = draw.integers(0, 9, len(coupling.labels)).astype(float)
    few = ratios_of(own, draw)
    more = {name: min(1.0, r * draw.choice([1.0, 1.5])) for name, r in few.items()}
    kept = coupling.kept(scores, few)
    assert np.array_equal(coupling.closed(kept), kept)
    assert np.all(kept <= coupling.kept(scores, more))
    assert coupling.kept(scores, dict.fromkeys(few, 1.0)).all()
    for group in own.graph.groups:
        assert kept[group.offset : group.offset + group.channels].any()


def test_votes_by_hand() -> None:
    """Layers of 4 and 2 channels; channel 3 of the first goes with channel 0 of the second.

    With ratio r the ranks 0, 1, ... vote r - 1/8, r - 3/8, r - 5/8, r - 7/8 and r - 1/4, r - 3/4.
    """
    groups = (ChannelGroup("a", 4, 0), ChannelGroup("b", 2, 4))
    coupling = Coupling(np.array([0, 1, 2, 3, 3, 4]), groups, ())
    scores = np.array([9.0, 8, 7, 6, 1, 0])

    def kept(a: float, b: float) -> list[int]:
        return np.flatnonzero(coupling.kept(scores, {"a": a, "b": b})).tolist()

    # The pair: (a - 7/8 + b - 1/4) / 2. It has the best mean rank of b: it stays in any case.
    assert kept(0.5, 0.5) == [0, 1, 3, 4]
    assert kept(0.1, 0.1) == [0, 3, 4]
    assert kept(0.1, 0.8) == [0, 3, 4, 5]
    scores[4:] = [0, 1]
    # Now it is the worst of both, and votes (a - 7/8 + b - 3/4) / 2.
    assert kept(0.7, 0.7) == [0, 1, 2, 5]
    assert kept(0.75, 0.875) == [0, 1, 2, 3, 4, 5]
    assert kept(0.7, 0.875) == [0, 1, 2, 5]


def test_what_must_stay_stays_without_a_vote() -> None:
    coupling = Coupling(np.array([0, -1, 1, -1]), (ChannelGroup("a", 4, 0),), ())
    scores = np.array([3.0, 2, 1, 0])
    assert coupling.kept(scores, {"a": 0.25}).tolist() == [True, True, False, True]
    assert coupling.kept(scores, {"a": 0.05}).tolist() == [False, True, False, True]


def test_without_layers_nothing_is_kept() -> None:
    coupling = network("mlp", hidden=()).coupling
    assert coupling.kept(np.zeros(0), {}).shape == (0,)
    assert coupling.closed(np.zeros(0, dtype=np.bool_)).shape == (0,)
