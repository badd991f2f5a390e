"""Rules for hostile clients against direct computation, over those who sent a position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.aggregation.masked import Total
from spatl_ray.aggregation.robust import (
    BLOCK,
    coordinate_median,
    hostile_clients,
    krum_choice,
    krum_scores,
    trimmed_mean,
)
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


SHARES = (0.0, 0.1, 0.2, 1 / 3, 0.49)


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 6),
    kind=st.sampled_from(list(VALUE_TYPES)),
    share=st.sampled_from(SHARES),
    data=st.data(),
)
def test_median_over_senders(
    seed: int, count: int, kind: str, share: float, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    parts = [
        keep(rng.standard_normal(17).round(1), mask, SMALL, kind)
        for mask in random_masks(rng, count)
    ]
    total = coordinate_median(SMALL, parts, share)
    sent = np.ones(17, dtype=bool) if total.sent is None else total.sent
    for position in range(17):
        known = [p.dense(SMALL, np.float64)[position] for p in parts if has(p, position)]
        assert sent[position] == (len(known) > 2 * hostile_clients(share, count))
        assert total.values[position] == (np.median(known) if sent[position] else 0.0)
    shuffled = coordinate_median(SMALL, data.draw(st.permutations(parts)), share)
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
    total = coordinate_median(LARGE, parts, 0.2)
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
    values = coordinate_median(SMALL, parts, 0.4).values
    assert (values >= honest.min(axis=0)).all()
    assert (values <= honest.max(axis=0)).all()


def test_unsent_positions_keep_their_bits() -> None:
    part = Part(channel_mask(np.array([True, False, False, False])), np.ones(8))
    total = coordinate_median(SMALL, [part], 0.2)
    before = np.full(17, -0.0, dtype=np.float32)
    after = total.apply(before)
    assert after[:3].tolist() == [1.0] * 3
    assert after[12:].tolist() == [1.0] * 5
    assert np.signbit(after[3:12]).all()


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 9),
    share=st.sampled_from(SHARES),
    data=st.data(),
)
def test_trimmed_mean_over_senders(
    seed: int, count: int, share: float, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    masks = random_masks(rng, count)
    parts = [keep(rng.standard_normal(17), mask, SMALL, "float64") for mask in masks]
    total = trimmed_mean(SMALL, parts, share)
    cut = hostile_clients(share, count)
    for position in range(17):
        known = sorted(p.dense(SMALL, np.float64)[position] for p in parts if has(p, position))
        left = known[cut : len(known) - cut]
        wanted = np.mean(left) if left else 0.0
        assert (total.sent is None or total.sent[position]) == bool(left)
        assert total.values[position] == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    shuffled = trimmed_mean(SMALL, data.draw(st.permutations(parts)), share)
    assert shuffled.values.tobytes() == total.values.tobytes()


@given(st.integers(0, 2**32), st.sampled_from([coordinate_median, trimmed_mean]))
def test_clients_that_lie_move_no_masked_position_out_of_the_range_of_the_others(
    seed: int, rule: Callable[..., Total]
) -> None:
    rng = np.random.default_rng(seed)
    honest = [
        keep(rng.standard_normal(17), mask, SMALL, "float64") for mask in random_masks(rng, 8)
    ]
    liars = [
        keep(rng.choice([-1e5, 1e5], 17), mask, SMALL, "float64") for mask in random_masks(rng, 2)
    ]
    total = rule(SMALL, [*honest, *liars], 0.2)
    for position in np.flatnonzero(np.ones(17) if total.sent is None else total.sent):
        known = [p.dense(SMALL, np.float64)[position] for p in honest if has(p, position)]
        assert min(known) <= total.values[position] <= max(known)


def test_a_trimmed_mean_over_blocks() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5, LARGE.size))
    parts = [Part(WHOLE, row) for row in rows]
    ordered = np.sort(rows, axis=0)
    found = trimmed_mean(LARGE, parts, 0.2)
    np.testing.assert_allclose(found.values, ordered[1:4].mean(axis=0), rtol=1e-12)
    assert found.sent is None


@given(seed=st.integers(0, 2**32), count=st.integers(2, 8), f=st.integers(0, 3))
def test_krum_by_hand(seed: int, count: int, f: int) -> None:
    rng = np.random.default_rng(seed)
    clients = []
    for masks in zip(random_masks(rng, count), random_masks(rng, count), strict=True):
        clients.append([keep(rng.standard_normal(17), m, SMALL, "float64") for m in masks])
    wanted = np.zeros(count)
    for i in range(count):
        distances = []
        for k in set(range(count)) - {i}:
            distances.append(
                sum(
                    ((one.dense(SMALL, np.float64) - other.dense(SMALL, np.float64)) ** 2).sum()
                    for one, other in zip(clients[i], clients[k], strict=True)
                )
            )
        wanted[i] = sum(sorted(distances)[: max(1, count - f - 2)])
    found = krum_scores([SMALL, SMALL], clients, f)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_krum_leaves_those_far_away_out() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((10, 17)) * 0.1
    rows[[2, 7]] += 5
    scores = krum_scores([SMALL], [[Part(WHOLE, row)] for row in rows], hostile_clients(0.2, 10))
    assert krum_choice(scores, 8) == [0, 1, 3, 4, 5, 6, 8, 9]
    assert krum_choice(scores, 1) == [int(np.argmin(scores))]
    assert krum_choice(np.zeros(3), 2) == [0, 1]
    assert krum_scores([SMALL], [[Part(WHOLE, rows[0])]], 0).tolist() == [0.0]
    assert [hostile_clients(0.2, n) for n in (4, 5, 10)] == [0, 1, 2]


def test_krum_leaves_out_who_lies_where_nobody_else_sends() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random(17) < 0.5 for _ in range(9)]
    for mask in masks:
        mask[0], mask[-3:] = True, False
    parts = [keep(rng.standard_normal(17), element_mask(m), SMALL, "float64") for m in masks]
    lies = np.zeros(17)
    lies[-3:] = 1e4
    liar = keep(lies, element_mask(np.isin(np.arange(17), [0, 14, 15, 16])), SMALL, "float64")
    scores = krum_scores([SMALL], [[part] for part in (*parts, liar)], 1)
    assert int(np.argmax(scores)) == 9
