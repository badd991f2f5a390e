"""Exact sums: the same bits in any order and grouping, the stated error, and the bounds."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.aggregation.exact import BLOCK, MAX_ADDENDS, ExactSum, limit
from spatl_ray.arrays import Bits, Doubles
from spatl_ray.errors import AggregationError
from spatl_ray.parameters import Array
from spatl_ray.update import VALUE_TYPES

LEVELS = [1, 2]
ERROR = {1: 2.0**-33, 2: 2.0**-55}
"""Largest error an addend, by number of levels."""


@dataclass(frozen=True)
class Addend:
    """What one call of `add` takes."""

    values: Array
    weight: float
    positions: Bits | None

    def products(self, size: int) -> Doubles:
        """weight * values as float64 rounds it, zero at positions that are not kept."""
        dense = np.zeros(size)
        dense[slice(None) if self.positions is None else self.positions] = self.values
        return dense * self.weight


@st.composite
def addend_lists(draw: st.DrawFn) -> tuple[int, list[Addend]]:
    """Dense and masked addends of magnitudes from 2^-40 to 2^10, of all value types."""
    size = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    addends = []
    for _ in range(draw(st.integers(1, 12))):
        dtype = VALUE_TYPES[draw(st.sampled_from(list(VALUE_TYPES)))]
        positions = rng.random(size) < rng.random() if draw(st.booleans()) else None
        count = size if positions is None else int(positions.sum())
        values = rng.standard_normal(count) * 2.0 ** rng.integers(-40, 10, count)
        values[rng.random(count) < 0.1] = -0.0
        addends.append(Addend(values.astype(dtype), float(rng.normal()), positions))
    return size, addends


def summed(size: int, levels: int, addends: Sequence[Addend]) -> ExactSum:
    """One sum over all addends, in this order."""
    total = ExactSum(size, levels)
    for addend in addends:
        total.add(addend.values, addend.weight, addend.positions)
    return total


def normals(size: int, seed: int = 0) -> Doubles:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(size)


@pytest.mark.parametrize("levels", LEVELS)
@given(addend_lists(), st.data())
@settings(deadline=None, max_examples=50)
def test_any_order_and_grouping_gives_the_same_bits(
    levels: int, drawn: tuple[int, list[Addend]], data: st.DataObject
) -> None:
    size, addends = drawn
    reference = summed(size, levels, addends).total()
    shuffled = data.draw(st.permutations(addends))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    edges = [0, *cuts, len(shuffled)]
    partial = [summed(size, levels, shuffled[a:b]) for a, b in itertools.pairwise(edges)]
    while len(partial) > 1:  # merge any two until one is left: a random tree
        left = partial.pop(data.draw(st.integers(0, len(partial) - 1)))
        right = partial.pop(data.draw(st.integers(0, len(partial) - 1)))
        left.merge(right)
        partial.append(left)
    assert partial[0].total().tobytes() == reference.tobytes()
    assert partial[0].addends == len(addends)


@pytest.mark.parametrize("levels", LEVELS)
@given(addend_lists())
@settings(deadline=None, max_examples=50)
def test_the_error_is_within_the_stated_one(levels: int, drawn: tuple[int, list[Addend]]) -> None:
    size, addends = drawn
    total = summed(size, levels, addends).total()
    products = np.stack([addend.products(size) for addend in addends])
    for j in range(size):
        exact = math.fsum(products[:, j])
        # fsum rounds once, and so does the total of two levels: half a unit each.
        assert abs(total[j] - exact) <= len(addends) * ERROR[levels] + math.ulp(exact)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("density", [0.0, 0.03, 0.5, 1.0])
def test_vectors_longer_than_a_block_are_summed_whole(levels: int, density: float) -> None:
    size = 2 * BLOCK + 17
    positions = np.random.default_rng(1).random(size) < density
    positions[:BLOCK] |= density > 0  # a block that is kept as a whole
    values = normals(int(positions.sum())).astype(np.float32)
    total = ExactSum(size, levels)
    total.add(values, 0.3, positions)
    expected = Addend(values, 0.3, positions).products(size)
    assert np.abs(total.total() - expected).max() <= ERROR[levels]
    assert not total.total()[~positions].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_plain_sums_do_depend_on_the_order(dtype: type[np.floating]) -> None:
    # What makes the property above say something: 64 vectors, ten orders.
    vectors = normals(64 * 1000).reshape(64, 1000).astype(dtype)
    orders = [np.random.default_rng(seed).permutation(64) for seed in range(10)]
    plain, exact = set(), set()
    for order in orders:
        running = np.zeros(1000, dtype=dtype)
        for i in order:
            running += vectors[i]
        plain.add(running.tobytes())
        addends = [Addend(vectors[i], 1.0, None) for i in order]
        exact.add(summed(1000, 2, addends).total().tobytes())
    assert len(plain) == len(orders)
    assert len(exact) == 1


def test_two_levels_keep_what_one_level_rounds_away() -> None:
    tiny = np.array([2.0**-50])
    totals = [summed(1, levels, [Addend(tiny, 1.0, None)] * 8).total()[0] for levels in LEVELS]
    assert totals == [0.0, 2.0**-47]


@pytest.mark.parametrize("levels", LEVELS)
def test_zeros_of_either_sign_sum_to_plus_zero(levels: int) -> None:
    values = np.array([-0.0, 0.0, -(2.0**-80)])
    total = summed(3, levels, [Addend(values, weight, None) for weight in (1.0, -1.0)]).total()
    assert total.tobytes() == bytes(24)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_limit_itself_is_summed_exactly(levels: int, sign: float) -> None:
    step = limit(levels) * 2.0**-49  # the coarse grid's spacing
    for magnitude in (limit(levels), limit(levels) - step):
        total = ExactSum(1, levels)
        total.add(np.array([sign * magnitude]))
        assert total.total()[0] == sign * magnitude


def test_the_limits_are_those_of_the_docstring() -> None:
    assert [limit(levels) for levels in LEVELS] == [2.0**17, 2.0**25]


@pytest.mark.parametrize("levels", LEVELS)
def test_an_addend_over_the_limit_is_refused(levels: int) -> None:
    over = np.nextafter(limit(levels), np.inf)
    for values, weight in (([over], 1.0), ([-over], 1.0), ([1.0], over), ([0.0, -2.0], over / 2)):
        with pytest.raises(AggregationError, match="sum to at most"):
            ExactSum(len(values), levels).add(np.array(values), weight)


@pytest.mark.parametrize("levels", LEVELS)
def test_magnitudes_that_sum_over_the_limit_are_refused(levels: int) -> None:
    half = np.array([limit(levels) / 2])
    total, other = ExactSum(1, levels), ExactSum(1, levels)
    total.add(half)
    total.add(-half)  # cancels in the sum, not in the magnitudes
    other.add(np.ones(1))
    with pytest.raises(AggregationError, match="sum to at most"):
        total.add(np.ones(1))
    with pytest.raises(AggregationError, match="sum to at most"):
        total.merge(other)
    assert total.total()[0] == 0.0
    assert total.addends == 2


@pytest.mark.parametrize("value_type", list(VALUE_TYPES))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value_type: str, bad: float) -> None:
    values = np.array([1.0, bad, 2.0]).astype(VALUE_TYPES[value_type])
    for weight in (1.0, 0.0):
        with pytest.raises(AggregationError, match="finite"):
            ExactSum(3).add(values, weight)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
@pytest.mark.parametrize("size", [0, 2])
def test_weights_that_are_not_finite_are_refused(weight: float, size: int) -> None:
    with pytest.raises(AggregationError, match="finite"):
        ExactSum(size).add(np.zeros(size), weight)


def test_a_refused_addition_leaves_the_sum_as_it_was() -> None:
    size = BLOCK + 5
    total = ExactSum(size)
    total.add(normals(size))
    before = total.total().tobytes(), total.bound, total.addends
    values = normals(size, 1)
    values[-1] = math.inf  # in the second block: the first is not added either
    with pytest.raises(AggregationError):
        total.add(values)
    assert (total.total().tobytes(), total.bound, total.addends) == before


def repeated(value: float, times: int) -> ExactSum:
    """A power of two of equal addends on two levels, by doubling."""
    total = ExactSum(1, 2)
    total.add(np.array([value]))
    while total.addends < times:
        total.merge(total)
    return total


def test_the_fine_grid_is_exact_up_to_the_number_of_additions() -> None:
    # 2^-25 is the largest remainder there is, half a coarse unit: half to even leaves all of it.
    small = np.array([3 * 2.0**-55])
    after, before = repeated(2.0**-25, MAX_ADDENDS // 2), ExactSum(1, 2)
    for total in (after, before):
        total.add(small)
        total.add(small)
    before.merge(repeated(2.0**-25, MAX_ADDENDS // 2))
    assert after.total()[0] == before.total()[0] == 2.0**-6 + 2 * 2.0**-53


@pytest.mark.parametrize("sign", [1, -1])
def test_one_level_is_exact_for_many_addends_up_to_the_limit(sign: int) -> None:
    times = 1 << 20
    total, value = ExactSum(1), np.array([sign * limit(1) / times])
    total.add(value)
    while total.addends < times:
        total.merge(total)
    assert total.total()[0] == sign * limit(1)


@pytest.mark.parametrize("levels", LEVELS)
def test_rounding_is_symmetric(levels: int) -> None:
    values = normals(1000)
    totals = [summed(1000, levels, [Addend(sign * values, 1.0, None)]).total() for sign in (1, -1)]
    assert np.array_equal(totals[0], -totals[1])


def test_two_levels_count_their_additions() -> None:
    total = repeated(2.0**-25, MAX_ADDENDS)
    assert total.total()[0] == MAX_ADDENDS * 2.0**-25
    with pytest.raises(AggregationError, match="additions"):
        total.add(np.zeros(1))


@pytest.mark.parametrize(
    ("values", "positions"),
    [
        (np.zeros(2), None),
        (np.zeros((3, 1)), None),
        (np.zeros(3), np.array([True, False, True])),
        (np.zeros(2), np.array([True, True])),
        (np.zeros(2), np.array([0, 1, 1])),
    ],
)
def test_shapes_that_do_not_match_are_refused(values: Array, positions: Bits | None) -> None:
    with pytest.raises(AggregationError, match="shape"):
        ExactSum(3).add(values, 1.0, positions)


def runs_of(positions: Bits) -> npt.NDArray[np.int64]:
    """Kept positions as intervals."""
    edges = np.flatnonzero(np.diff(positions, prepend=False, append=False))
    return edges.reshape(-1, 2)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("length", [1, 300, BLOCK + 3])
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_runs_are_positions(levels: int, length: int, density: float) -> None:
    """Short ones, many in a block, and such that are longer than one."""
    kept = np.random.default_rng(0).random(2 * BLOCK // length + 5) < density
    positions = np.repeat(kept, length)
    values = normals(int(positions.sum())).astype(np.float32)
    by_runs, by_positions = ExactSum(len(positions), levels), ExactSum(len(positions), levels)
    for weight in (0.3, -1.7):
        by_runs.add(values, weight, runs_of(positions))
        by_positions.add(values, weight, positions)
    assert by_runs.total().tobytes() == by_positions.total().tobytes()


@pytest.mark.parametrize(
    "runs", [[[0, 2], [1, 3]], [[2, 4]], [[-1, 1]], [[2, 3], [0, 1]], [[2, 0], [0, 3], [2, 3]]]
)
def test_runs_that_overlap_or_lie_outside_are_refused(runs: list[list[int]]) -> None:
    array = np.array(runs)
    values = np.zeros(max(0, int((array[:, 1] - array[:, 0]).sum())))
    with pytest.raises(AggregationError, match="ascending intervals in"):
        ExactSum(3).add(values, 1.0, array)


@pytest.mark.parametrize("other", [ExactSum(3, 2), ExactSum(4, 1)])
def test_sums_of_another_form_are_not_merged(other: ExactSum) -> None:
    with pytest.raises(AggregationError, match="must agree"):
        ExactSum(3, 1).merge(other)


@pytest.mark.parametrize(("size", "levels"), [(3, 0), (3, 3), (-1, 1)])
def test_sums_that_cannot_be_are_refused(size: int, levels: int) -> None:
    with pytest.raises(AggregationError, match="must be"):
        ExactSum(size, levels)


@pytest.mark.parametrize("levels", LEVELS)
def test_a_sum_that_was_sent_read_only_goes_on(levels: int) -> None:
    total = summed(5, levels, [Addend(normals(5), 1.0, None)])
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(total, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 500  # the arrays travel out of band
    received = pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])
    assert not received.sums.flags.writeable
    received.merge(total)
    received.add(normals(5, 1), 0.5)
    total.merge(total)
    total.add(normals(5, 1), 0.5)
    assert received.total().tobytes() == total.total().tobytes()
    assert (received.bound, received.addends) == (total.bound, total.addends)


def test_adding_leaves_the_values_as_they_were() -> None:
    values = normals(10)
    before = values.tobytes()
    ExactSum(10, 2).add(values, 0.3)
    assert values.tobytes() == before


@given(
    st.lists(st.floats(-1e3, 1e3) | st.floats(-1e-12, 1e-12), max_size=20), st.sampled_from([1, 2])
)
def test_one_value_is_added_to_the_same_bits(values: list[float], levels: int) -> None:
    one, other = ExactSum(1, levels), ExactSum(1, levels)
    for value in values:
        one.add_one(value)
        other.add(np.ones(1), value)
    assert np.array_equal(one.sums, other.sums)
    assert (one.bound, one.addends) == (other.bound, other.addends)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e30])
def test_one_value_that_cannot_be_added_is_refused(value: float) -> None:
    total = ExactSum(1)
    total.add_one(0.25)
    before = total.sums.copy()
    with pytest.raises(AggregationError):
        total.add_one(value)
    assert np.array_equal(total.sums, before)
    assert total.addends == 1
