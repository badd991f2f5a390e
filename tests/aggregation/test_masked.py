"""Masked sums against a dense float64 oracle, and bit-identical in any order and grouping."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.aggregation.masked import (
    LONG,
    Accumulator,
    Denominator,
    Double,
    Partial,
    Total,
    Weight,
    Weights,
)
from spatl_ray.aggregation.verdict import judge_update
from spatl_ray.arrays import Bits
from spatl_ray.errors import AggregationError
from spatl_ray.parameters import Array, ChannelGroup, Space, make_space
from spatl_ray.update import (
    VALUE_TYPES,
    WHOLE,
    Mask,
    Part,
    Update,
    channel_mask,
    element_mask,
    keep,
)

GROUPS = (ChannelGroup("conv", 3, 0), ChannelGroup("fc", 2, 3))
SPACE = make_space(
    [
        ("conv.weight", "encoder", (3, 4), 0),
        ("conv.bias", "encoder", (3,), 0),
        ("scale", "encoder", (5,), -1),
        ("fc.weight", "encoder", (2, 3), 1),
    ],
    GROUPS,
)
BUFFERS = make_space([("norm.running_mean", "encoder", (3,), 0)], GROUPS)
ACCUMULATORS = [
    Accumulator(f"{weight.value} {denominator}", SPACE, weight, denominator)
    for weight in Weight
    for denominator in ("senders", "cohort", None)
]
ERROR = {1: 2.0**-33, 2: 2.0**-55}
"""Largest error an addend, by number of levels."""
STRANGE = np.array([0x80000000, 0x7FC12345, 0xFFC00001, 0x7F800000, 0x00000001], dtype=np.uint32)
"""-0.0, two NaNs with a payload, infinity, and the smallest subnormal number, as bits."""


@dataclass(frozen=True)
class Sender:
    """One client's part and weights."""

    part: Part
    weights: Weights

    def bits(self) -> Bits:
        """The positions it sent, shape (SPACE.size,)."""
        positions = self.part.mask.positions(SPACE)
        return np.ones(SPACE.size, np.bool_) if positions is None else positions


def random_mask(rng: np.random.Generator, space: Space) -> Mask:
    """Whole, by channel or by element, at a random density; the other positions stay unsent."""
    kind, density = rng.integers(0, 5), rng.choice([0.1, 0.5, 0.9])
    if kind == 0:
        return WHOLE
    if kind < 3:
        return channel_mask(rng.random(space.channels) < density)
    return element_mask(rng.random(space.size) < density)


@st.composite
def cohorts(draw: st.DrawFn) -> list[Sender]:
    """One to seven clients with random masks, weights, value types and magnitudes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 7))
    shares = rng.uniform(0.1, 1, count)
    senders = []
    for share in shares:
        kind = draw(st.sampled_from(list(VALUE_TYPES)))
        vector = rng.standard_normal(SPACE.size) * 2.0 ** rng.integers(-20, 8, SPACE.size)
        part = keep(vector, random_mask(rng, SPACE), SPACE, kind)
        senders.append(Sender(part, Weights(share / shares.sum(), share / 20)))
    return senders


def partial(senders: Sequence[Sender], levels: int) -> Partial:
    """The sums of one group, added in this order."""
    sums = Partial(ACCUMULATORS, levels)
    for sender in senders:
        sums.add({a.name: sender.part for a in ACCUMULATORS}, sender.weights)
    return sums


def oracle(accumulator: Accumulator, senders: Sequence[Sender]) -> tuple[Double, Bits]:
    """sum w m v / D on dense float64 vectors, and which positions somebody sent."""
    weights = np.array([s.weights.of(accumulator.weight) for s in senders])
    masks = np.array([s.bits() for s in senders], dtype=np.float64)
    values = np.array([s.part.dense(SPACE, np.float64) for s in senders])
    total = (weights[:, None] * masks * values).sum(axis=0)
    sent = masks.any(axis=0)
    divisors: dict[Denominator | None, Double] = {
        "senders": (weights[:, None] * masks).sum(axis=0),
        "cohort": np.full(SPACE.size, weights.sum()),
        None: np.ones(SPACE.size),
    }
    divisor = divisors[accumulator.denominator]
    return np.divide(total, divisor, out=np.zeros(SPACE.size), where=sent), sent


def sent_bits(total: Total) -> Bits:
    return np.ones(SPACE.size, np.bool_) if total.sent is None else total.sent


@pytest.mark.parametrize("levels", [1, 2])
@given(senders=cohorts())
def test_sums_equal_a_dense_oracle(levels: int, senders: list[Sender]) -> None:
    """N and D err by at most ERROR an addend, N / D by 1 + |N / D| times that over D >= 1/200."""
    totals = partial(senders, levels).totals()
    for accumulator in ACCUMULATORS:
        expected, sent = oracle(accumulator, senders)
        total = totals[accumulator.name]
        assert np.array_equal(sent_bits(total), sent)
        error = 200 * len(senders) * ERROR[levels] * (1 + np.abs(expected))
        rounding = (
            1e-15 * 200 * max(np.abs(s.part.values.astype(float)).max(initial=0) for s in senders)
        )
        assert (np.abs(total.values - expected) <= error + rounding).all()


@pytest.mark.parametrize("levels", [1, 2])
@given(senders=cohorts(), data=st.data())
def test_any_order_and_grouping_gives_the_same_bits(
    levels: int, senders: list[Sender], data: st.DataObject
) -> None:
    reference = partial(senders, levels).totals()
    shuffled = data.draw(st.permutations(senders))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    groups = [shuffled[i:j] for i, j in itertools.pairwise([0, *cuts, len(shuffled)])]
    merged = Partial(ACCUMULATORS, levels)
    for group in data.draw(st.permutations(groups)):
        merged.merge(partial(group, levels))
    for name, total in merged.totals().items():
        assert total.values.tobytes() == reference[name].values.tobytes()
        assert np.array_equal(sent_bits(total), sent_bits(reference[name]))


def test_merging_takes_a_group_into_an_empty_one_and_leaves_the_group_as_it_was() -> None:
    part = Part(element_mask(np.arange(SPACE.size) < 2), np.array([1.0, 3.0]))
    group = partial([Sender(part, Weights(0.5, 0.25))], 2)
    merged = Partial(ACCUMULATORS, 2)
    merged.merge(group)
    merged.merge(group)
    assert merged.totals()["population None"].values[:2] == pytest.approx([0.5, 1.5])
    assert group.totals()["population None"].values[:2] == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(senders=cohorts(), seed=st.integers(0, 2**32))
def test_what_nobody_sent_keeps_its_bits(
    dtype: type[np.floating], senders: list[Sender], seed: int
) -> None:
    """Also -0.0 and the payload of a NaN; what was sent moves by scale * total."""
    rng = np.random.default_rng(seed)
    strange = STRANGE.view(np.float32)[rng.integers(0, len(STRANGE), SPACE.size)]
    plain = rng.standard_normal(SPACE.size).astype(dtype)
    for total in partial(senders, 2).totals().values():
        sent = sent_bits(total)
        vector = np.where(sent, plain, strange.astype(dtype)).astype(dtype)
        moved = total.apply(vector, 0.5)
        assert moved.dtype == dtype
        assert bits_of(moved[~sent]) == bits_of(vector[~sent])
        step = (vector[sent].astype(np.float64) + 0.5 * total.values[sent]).astype(dtype)
        assert bits_of(moved[sent]) == bits_of(step)


def bits_of(vector: Array) -> bytes:
    return vector.tobytes()


@pytest.mark.parametrize("levels", [1, 2])
def test_nobody_accepted_leaves_everything_untouched(levels: int) -> None:
    vector = np.resize(STRANGE.view(np.float32), SPACE.size)
    totals = partial([], levels).totals()
    assert totals.keys() == {a.name for a in ACCUMULATORS}
    for total in totals.values():
        assert not sent_bits(total).any()
        assert not total.values.any()
        assert bits_of(total.apply(vector)) == bits_of(vector)


def test_an_empty_mask_sends_nothing_but_counts_in_the_cohort() -> None:
    one = Sender(Part(WHOLE, np.full(SPACE.size, 2.0)), Weights(0.25, 0.25))
    none = Sender(Part(element_mask(np.zeros(SPACE.size, bool)), np.zeros(0)), Weights(0.75, 0.75))
    totals = partial([one, none], 2).totals()
    assert totals["cohort senders"].values == pytest.approx(2.0)
    assert totals["cohort cohort"].values == pytest.approx(0.5)
    assert totals["cohort cohort"].sent is None


@pytest.mark.parametrize("weight", list(Weight))
def test_the_cohort_is_those_who_were_added(weight: Weight) -> None:
    """A rejected update is not added: the others' weights are then the whole, in either weight."""
    accumulator = Accumulator("delta", SPACE, weight, "cohort")
    sums = Partial([accumulator], 2)
    for value in (1.0, 5.0):
        sums.add({"delta": Part(WHOLE, np.full(SPACE.size, value))}, Weights(0.25, 0.01))
    assert sums.totals()["delta"].values == pytest.approx(3.0)


def test_a_clipped_update_counts_scaled() -> None:
    values = np.zeros(SPACE.size, dtype=np.float32)
    values[:2] = [3, 4]
    update = Update(0, 0, 1, 1, {"delta": Part(WHOLE, values)})
    clipped = judge_update(update, clip_norm=0.5).applied(update)
    sums = Partial([Accumulator("delta", SPACE)], 1)
    sums.add(clipped.parts, Weights(1.0, 1.0))
    assert sums.totals()["delta"].values[:3] == pytest.approx([0.3, 0.4, 0.0])


def test_long_channels_are_summed_like_their_positions() -> None:
    """They are added run by run, and their weights are summed by channel."""
    groups = (ChannelGroup("conv", 5, 0),)
    tensors = [("conv.weight", "encoder", (5, LONG), 0), ("scale", "encoder", (7,), -1)]
    space = make_space(tensors, groups)
    accumulator = Accumulator("delta", space)
    by_channel, by_position = Partial([accumulator], 1), Partial([accumulator], 1)
    draw = np.random.default_rng(0)
    for weight in (0.25, 0.5, 0.125):
        mask = channel_mask(draw.random(5) < 0.5)
        positions = mask.positions(space)
        assert positions is not None
        part = keep(draw.normal(size=space.size), mask, space, "float64")
        by_channel.add({"delta": part}, Weights(weight, weight))
        same = Part(element_mask(positions), part.values)
        by_position.add({"delta": same}, Weights(weight, weight))
    total, expected = by_channel.totals()["delta"], by_position.totals()["delta"]
    assert np.array_equal(total.values, expected.values)
    assert total.sent is not None
    assert expected.sent is not None
    assert np.array_equal(total.sent, expected.sent)
    assert not total.sent.all()


def test_buffers_follow_their_channels() -> None:
    """One channel mask decides on both vectors; what it leaves out keeps its bits in both."""
    bits = np.array([True, False, True, False, False])
    mask = channel_mask(bits)
    sums = Partial([Accumulator("delta", SPACE), Accumulator("buffers", BUFFERS)], 1)
    terms = {
        "delta": keep(np.ones(SPACE.size), mask, SPACE, "float32"),
        "buffers": keep(np.array([1.0, 2.0, 3.0]), mask, BUFFERS, "float32"),
    }
    sums.add(terms, Weights(1.0, 1.0))
    totals = sums.totals()
    before = np.array([-0.0, -0.0, -0.0], dtype=np.float32)
    after = totals["buffers"].apply(before)
    assert after.tolist() == [1.0, 0.0, 3.0]
    assert np.signbit(after[1])
    rows = totals["delta"].values[:12].reshape(3, 4)
    assert rows.tolist() == [[1.0] * 4, [0.0] * 4, [1.0] * 4]
    assert sent_bits(totals["delta"])[15:20].all()  # "scale" is in no group: it always travels


@pytest.mark.parametrize("terms", [{}, {"delta": 1, "other": 1}])
def test_terms_must_be_the_declared_ones(terms: dict[str, int]) -> None:
    sums = Partial([Accumulator("delta", SPACE)], 1)
    parts = dict.fromkeys(terms, Part(WHOLE, np.ones(SPACE.size)))
    with pytest.raises(AggregationError, match=r"terms must be \['delta'\], got"):
        sums.add(parts, Weights(1.0, 1.0))


@settings(max_examples=25)
@given(senders=cohorts(), seed=st.integers(0, 2**32))
def test_the_cosine_is_that_of_each_vector_with_the_sum_weighted_by_length(
    senders: list[Sender], seed: int
) -> None:
    """sum_i w_i |v_i| cos(v_i, s) / sum_i w_i |v_i| for s = sum_i w_i v_i, by definition; in any order."""
    name = "cohort senders"

    def cosine(order: Sequence[Sender]) -> float | None:
        sums = partial(order, 2)
        for sender in order:
            sums.note_length(name, dict.fromkeys(sums.accumulations, sender.part), sender.weights)
            sums.note_length("no such term", {}, sender.weights)
        return sums.totals()[name].cosine

    vectors = [s.weights.cohort * s.part.dense(SPACE, np.float64) for s in senders]
    lengths = np.array([np.linalg.norm(v) for v in vectors])
    whole = np.sum(vectors, axis=0)
    if not lengths.any() or not whole.any():
        return
    cosines = [v @ whole / np.linalg.norm(whole) for v in vectors]
    found = cosine(senders)
    assert found == pytest.approx(np.sum(cosines) / lengths.sum(), abs=1e-9)
    shuffled = [senders[i] for i in np.random.default_rng(seed).permutation(len(senders))]
    assert cosine(shuffled) == found
    assert partial(senders, 2).totals()[name].cosine is None, "nobody noted lengths"
