"""Salience by hand-computed norms, and masks that keep the most salient channels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spatl_ray.errors import ConfigError
from spatl_ray.parameters import ChannelGroup, Space, make_space
from spatl_ray.selection.salience import (
    channel_norms,
    keep_most_salient,
    kept_channels,
    layer_ratios,
)

GROUPS = (ChannelGroup("a", 2, 0), ChannelGroup("b", 3, 2))
SPACE = make_space(
    [
        ("a.weight", "encoder", (2, 1, 1, 2), 0),
        ("a.bias", "encoder", (2,), 0),
        ("norm.weight", "encoder", (2,), 0),
        ("free", "encoder", (2,), -1),
        ("b.weight", "encoder", (3, 2), 1),
    ],
    GROUPS,
)
WEIGHTS = np.array([3, -4, 1, 0, 50, 60, 70, 80, 90, 90, 1, 1, 0, -2, 2, 2], dtype=np.float32)


def groups_of(*channels: int) -> Space:
    """A space of linear layers with one input each."""
    groups = [ChannelGroup(f"layer{i}", c, sum(channels[:i])) for i, c in enumerate(channels)]
    return make_space(
        [(f"{g.name}.weight", "encoder", (g.channels, 1), i) for i, g in enumerate(groups)],
        tuple(groups),
    )


def test_norms_by_hand() -> None:
    assert channel_norms(SPACE, WEIGHTS, 1).tolist() == [7, 1, 2, 2, 4]
    expected = [5, 1, np.sqrt(2), 2, np.sqrt(8)]
    assert channel_norms(SPACE, WEIGHTS, 2) == pytest.approx(expected, rel=1e-15)


def test_float32_does_not_overflow_in_a_norm() -> None:
    space = groups_of(2)
    large = np.array([3e38, 1e-38], dtype=np.float32)
    assert channel_norms(space, large, 2) == pytest.approx([3e38, 1e-38], rel=1e-7)


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 5000))
def test_kept_channels_is_the_nearest_and_at_least_one(ratio: float, channels: int) -> None:
    kept = kept_channels(ratio, channels)
    assert 1 <= kept <= channels
    assert kept == 1 or abs(kept - ratio * channels) <= 0.5 + 1e-9


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 5000))
def test_kept_channels_grows_with_the_ratio(a: float, b: float, channels: int) -> None:
    low, high = sorted((a, b))
    assert kept_channels(low, channels) <= kept_channels(high, channels)


@pytest.mark.parametrize(
    ("ratio", "channels", "kept"),
    [(1.0, 7, 7), (0.5, 7, 4), (0.5, 1, 1), (0.1, 5, 1), (0.3, 5, 2), (0.001, 64, 1)],
)
def test_kept_channels_by_hand(ratio: float, channels: int, kept: int) -> None:
    assert kept_channels(ratio, channels) == kept


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.floats(0.01, 1),
    st.integers(0, 2**32 - 1),
)
def test_each_layer_keeps_its_highest_scores(sizes: list[int], ratio: float, seed: int) -> None:
    space = groups_of(*sizes)
    scores = np.random.default_rng(seed).integers(0, 4, space.channels).astype(float)
    ratios = {g.name: ratio for g in space.groups}
    bits = keep_most_salient(space, scores, ratios)
    assert np.array_equal(bits, keep_most_salient(space, scores.copy(), ratios))
    for group in space.groups:
        span = slice(group.offset, group.offset + group.channels)
        own, kept = scores[span], bits[span]
        assert kept.sum() == kept_channels(ratio, group.channels)
        # By the definition: a channel stays if fewer than `kept` channels come before it, where
        # a higher score comes first, and of equal ones the lower index.
        before = [
            sum(o > s or (o == s and j < i) for j, o in enumerate(own)) for i, s in enumerate(own)
        ]
        assert kept.tolist() == [b < kept.sum() for b in before]


def test_ties_go_to_the_lower_index() -> None:
    bits = keep_most_salient(groups_of(4), np.ones(4), {"layer0": 0.5})
    assert bits.tolist() == [True, True, False, False]


@given(hnp.arrays(np.float64, 12, elements=st.floats(0, 1)), st.floats(0.01, 1), st.floats(0.01, 1))
def test_more_is_a_superset(scores: np.ndarray, a: float, b: float) -> None:
    space = groups_of(5, 7)
    low, high = sorted((a, b))
    few, many = (
        keep_most_salient(space, scores, dict.fromkeys(("layer0", "layer1"), r))
        for r in (low, high)
    )
    assert np.all(few <= many)


def test_own_ratios_take_precedence() -> None:
    assert layer_ratios(SPACE, 0.5, {"b": 1.0}) == {"a": 0.5, "b": 1.0}


def test_unknown_layers_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        layer_ratios(SPACE, 0.5, {"b": 1.0, "c": 0.1, "norm": 0.2})
    assert caught.value.faults == (
        "algorithm.keep_layers must name prunable encoder layers (a, b), got 'c'",
        "algorithm.keep_layers must name prunable encoder layers (a, b), got 'norm'",
    )
