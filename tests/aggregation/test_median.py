"""The coordinate-wise median against numpy's, over those who sent a position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.aggregation.median import BLOCK, coordinate_median
from spatl_ray.parameters import ChannelGroup, make_space
from spatl_ray.update import (
    VALUE_TYPES,
    WHOLE,
    Mask,
    Part,
    channel_mask,
    element_mask,
    keep,
)

SMALL = make_space(
    [("weight", "encoder", (4, 3), 0), ("other", "encoder", (5,), -1)],
    (ChannelGroup("layer", 4, 0),),
)
LARGE = make_space(
    [("weight", "encoder", (5, BLOCK // 2), 0), ("bias", "encoder", (5,), 0)],
    (ChannelGroup("layer", 5, 0),),
)
"""Two full blocks and a bit: no row of a channel mask ends with a block but the second and fourth."""


def random_masks(rng: np.random.Generator, count: int) -> list[Mask]:
    masks = [WHOLE, channel_mask(rng.random(4) < 0.5), element_mask(rng.random(17) < 0.5)]
    return [masks[i] for i in rng.integers(0, 3, count)]


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 6),
    kind=st.sampled_from(list(VALUE_TYPES)),
    data=st.data(),
)
def test_median_over_senders(seed: int, count: int, kind: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    parts = [
        keep(rng.standard_normal(17).round(1), mask, SMALL, kind)
        for mask in random_masks(rng, count)
    ]
    total = coordinate_median(SMALL, parts)
    sent = np.ones(17, dtype=bool) if total.sent is None else total.sent
    for position in range(17):
        known = [p.dense(SMALL, np.float64)[position] for p in parts if has(p, position)]
        assert sent[position] == bool(known)
        assert total.values[position] == (np.median(known) if known else 0.0)
    shuffled = coordinate_median(SMALL, data.draw(st.permutations(parts)))
    assert shuffled.values.tobytes() == total.values.tobytes()


def has(part: Part, position: int) -> bool:
    kept = part.mask.positions(SMALL)
    return kept is None or bool(kept[position])


@pytest.mark.parametrize("count", [1, 4])
def test_blocks_do_not_show(count: int) -> None:
    rng = np.random.default_rng(count)
    masks = [
        WHOLE,
        channel_mask(np.array([True, False, True, True, False])),
        element_mask(rng.random(LARGE.size) < 0.3),
        channel_mask(np.array([False, True, False, True, False])),
    ][-count:]
    parts = [keep(rng.standard_normal(LARGE.size), mask, LARGE, "float32") for mask in masks]
    dense = np.full((count, LARGE.size), np.nan)
    for row, part in zip(dense, parts, strict=True):
        kept = part.mask.positions(LARGE)
        row[slice(None) if kept is None else kept] = part.values
    sent = ~np.isnan(dense).all(axis=0)
    total = coordinate_median(LARGE, parts)
    assert LARGE.size > 2 * BLOCK
    assert (total.sent is None) == bool(sent.all())
    assert np.array_equal(total.values[sent], np.nanmedian(dense[:, sent], axis=0))
    assert not total.values[~sent].any()


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_minority_cannot_move_it_out_of_the_range_of_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    honest = rng.standard_normal((3, 17))
    liars = rng.choice([-1e5, 1e5], (2, 17))
    parts = [Part(WHOLE, vector) for vector in (*honest, *liars)]
    values = coordinate_median(SMALL, parts).values
    assert (values >= honest.min(axis=0)).all()
    assert (values <= honest.max(axis=0)).all()


def test_unsent_positions_keep_their_bits() -> None:
    part = Part(channel_mask(np.array([True, False, False, False])), np.ones(8))
    total = coordinate_median(SMALL, [part])
    before = np.full(17, -0.0, dtype=np.float32)
    after = total.apply(before)
    assert after[:3].tolist() == [1.0] * 3
    assert after[12:].tolist() == [1.0] * 5
    assert np.signbit(after[3:12]).all()
