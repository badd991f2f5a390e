"""Flat vectors and their spaces."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.parameters import ChannelGroup, Layout, Space, make_space

PARTS = ("encoder", "predictor", "other")
shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Spaces with groups of 1 to 4 channels, some segments covered by one of them."""
    counts = draw(st.lists(st.integers(1, 4), max_size=3))
    groups = tuple(ChannelGroup(f"g{i}", c, sum(counts[:i])) for i, c in enumerate(counts))
    tensors = []
    for index in range(draw(st.integers(0, 6))):
        group = draw(st.integers(-1, len(groups) - 1))
        shape = draw(shapes)
        if group >= 0:
            shape = (groups[group].channels, *shape)
        tensors.append((f"t{index}", draw(st.sampled_from(PARTS)), shape, group))
    return make_space(tensors, groups)


@given(spaces())
def test_segments_have_no_gaps(space: Space) -> None:
    position = 0
    for segment in space.segments:
        assert segment.offset == position
        assert segment.size == math.prod(segment.shape)
        position += segment.size
    assert space.size == position
    assert space.channels == sum(g.channels for g in space.groups)


@given(spaces())
def test_views_cover_the_vector_without_copies(space: Space) -> None:
    vector = np.arange(space.size, dtype=np.float64)
    views = space.views(vector)
    for segment in space.segments:
        assert views[segment.name].shape == segment.shape
        views[segment.name][...] += 1
    assert np.array_equal(vector, np.arange(space.size) + 1)


@given(spaces(), st.integers(0, 2**32 - 1))
def test_runs_are_what_a_channel_mask_keeps(space: Space, seed: int) -> None:
    bits = np.random.default_rng(seed).random(space.channels) < 0.5
    kept = np.zeros(space.size, dtype=np.bool_)
    for start, stop in space.runs(bits):
        assert not kept[start:stop].any()
        kept[start:stop] = True
    assert np.array_equal(kept, space.expand(bits))
    assert (np.diff(space.runs(bits).ravel()) >= 0).all()


@given(spaces(), st.integers(0, 2**32 - 1))
def test_a_channel_bit_keeps_its_rows(space: Space, seed: int) -> None:
    bits = np.random.default_rng(seed).random(space.channels) < 0.5
    kept = space.views(space.expand(bits).astype(np.float64))
    for segment in space.segments:
        rows = kept[segment.name]
        if segment.group < 0:
            assert rows.all()
            continue
        group = space.groups[segment.group]
        for channel in range(group.channels):
            assert (rows[channel] == bits[group.offset + channel]).all()


@given(spaces(), st.sets(st.sampled_from(PARTS)))
def test_ranges_are_the_parts_positions_in_few_slices(space: Space, parts: set[str]) -> None:
    ranges = space.ranges(frozenset(parts))
    positions = [p for r in ranges for p in range(r.start, r.stop)]
    wanted = [p for s in space.segments if s.part in parts for p in range(s.offset, s.span.stop)]
    assert positions == wanted
    assert all(a.stop < b.start for a, b in pairwise(ranges))


def test_a_layout_puts_local_behind_shared() -> None:
    groups = (ChannelGroup("conv", 2, 0),)
    shared = make_space([("conv.weight", "encoder", (2, 3), 0)], groups)
    local = make_space([("head.weight", "predictor", (4,), -1)], groups)
    statistics = make_space([("norm.mean", "encoder", (2,), 0)], groups)
    layout = Layout(shared, local, make_space([], groups), statistics)
    assert [(s.name, s.offset) for s in layout.parameters.segments] == [
        ("conv.weight", 0),
        ("head.weight", 6),
    ]
    assert layout.parameters.groups == groups
    assert layout.buffers.size == 2
    bits = np.array([True, False])
    assert layout.parameters.expand(bits).tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1, 1]
    assert layout.buffers.expand(bits).tolist() == [1, 0]


@pytest.mark.parametrize("space", [make_space([]), make_space([("t", "encoder", (0, 3), -1)])])
def test_empty_spaces(space: Space) -> None:
    assert (space.size, space.channels) == (0, 0)
    assert space.expand(np.zeros(0, dtype=np.bool_)).shape == (0,)


def test_a_scalar_is_one_position() -> None:
    space = make_space([("scale", "encoder", (), -1)])
    assert space.size == 1
    assert space.views(np.ones(1))["scale"].shape == ()
