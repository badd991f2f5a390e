"""Sums that are bit-identical for any order and any grouping of their addends.

Integer addition is associative. So each addend u is first rounded to a fixed grid, the multiples of
g = 2^-q, by a float64 addition whose result *is* the integer, biased:

    s = u + M,    M = 1.5 * 2^(52-q),    t = s - M    (never computed, but for a second level)

For |u| <= 2^(51-q), s lies in [2^(52-q), 2^(53-q)], where float64 numbers are g apart, so that the
addition rounds to the grid (|t - u| <= g / 2), to even in the middle. The bits of s, read as an integer,
are those of M plus t / g: floating-point numbers of one sign are ordered like their bits, also over the
end of a binade. What is kept is the sum of these bits modulo 2^64. As the lowest 51 bits of M are 0, the
lowest 51 bits of the sum are those of sum t / g, however many addends there were: sign-extended they are
the sum itself, while that is within 2^50. A zero adds nothing, whatever its sign.

One level, q = 32. The error is at most 2^-33 an addend. Magnitudes |u| may sum to 2^17, that is 2^49 grid
units; rounding may lengthen each addend by half a unit, so that 2^50 addends of that are allowed: no run
has so many, and they are not counted.

Two levels, q = 24 and q' = 54. |u| sums to at most 2^25, by the same argument. The remainder r = u - t has
|r| <= 2^-25. It is exact: where t = 0 trivially, elsewhere u/2 <= t <= 2u in magnitude, and Sterbenz's lemma
holds. On the fine grid the rounded r stays within 2^-25 (itself a point of the grid), and the error is at
most 2^-55 an addend. N fine addends stay within N 2^29 <= 2^49 units for N <= 2^20, the number allowed. The
total adds both sums, which rounds once, to the nearest float64.

What is tracked to raise in time is an upper bound of the sum of magnitudes, the sum of max|u| over
all additions. It is an ordinary float64 sum, and the last bits of *it* do depend on the order; the
limit is half of what stays exact, so that neither this nor the rounding to the grid matters.

References:
    J. Demmel, H. D. Nguyen, "Fast reproducible floating-point summation", ARITH 21, 2013
    (pre-rounding).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import cast

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Bits, Doubles, Integers
from spatl_ray.errors import AggregationError
from spatl_ray.parameters import Array

GRIDS: dict[int, tuple[int, ...]] = {1: (32,), 2: (24, 54)}
"""The exponents q of the grids 2^-q, coarse to fine, by number of levels."""

MAX_ADDENDS = 1 << 20
"""Most additions that a sum of two levels takes."""

BLOCK = 1 << 17
"""Values handled at a time, at most twice as many: the scratch space (2 MiB at most) stays in a cache, and
calls are few."""

UNUSED = 13
"""High bits of a sum that the addends' bias has spoilt."""

Runs = npt.NDArray[np.int64]
"""Kept positions as intervals [start, stop) in ascending order, shape (runs, 2)."""


def limit(levels: int) -> float:
    """The largest magnitude that an addend, and the total of magnitudes, may have: 2^(49-q).

    Raises:
        AggregationError: `levels` is neither 1 nor 2.
    """
    if levels not in GRIDS:
        raise AggregationError(f"levels must be 1 or 2, got {levels}")
    return math.ldexp(1.0, 49 - GRIDS[levels][0])


class ExactSum:
    """The exact sum of weighted vectors, each rounded to a fixed grid first.

    levels=1: error at most 2^-33 an addend; levels=2, for float64 work: at most 2^-55 an addend and
    half a unit in the last place of the total.

    Attributes:
        sums: shape (levels, size), the biased sums of grid units.
        addends: number of additions so far.
        bound: upper bound of the sum of magnitudes at any position.

    References:
        The module's docstring derives grids and bounds.
    """

    __slots__ = ("addends", "bound", "sums")

    def __init__(self, size: int, levels: int = 1) -> None:
        """Zero at `size` positions, on `levels` grids."""
        limit(levels)
        if size < 0:
            raise AggregationError(f"size must be at least 0, got {size}")
        self.sums: Integers = np.zeros((levels, size), dtype=np.int64)
        self.addends = 0
        self.bound = 0.0

    @property
    def size(self) -> int:
        """Number of positions."""
        return int(self.sums.shape[1])

    @property
    def levels(self) -> int:
        """Number of grids."""
        return int(self.sums.shape[0])

    def add(self, values: Array, weight: float = 1.0, kept: Bits | Runs | None = None) -> None:
        """Add weight * values, computed in float64, at the kept positions.

        A refused addition leaves the sum as it was.

        Args:
            values: shape (size,), or one entry a kept position, in their order.
            weight: the factor.
            kept: positions as booleans, shape (size,), or as runs; None for all.

        Raises:
            AggregationError: shapes that do not match, a product that is not finite, or magnitudes
                or additions over the limit.
        """
        self._check_shapes(values, kept)
        if values.dtype not in (np.float32, np.float64):  # 16 bits: exact, and far faster to read
            values = values.astype(np.float64)
        self._reserve(_peak(values, weight), 1)
        scratch = np.empty((self.levels, min(2 * BLOCK, len(values))), dtype=np.float64)
        taken = 0
        for count, places in _pieces(self.size, kept):
            products = scratch[:, :count]
            np.copyto(products[0], values[taken : taken + count])
            products[0] *= weight  # after the copy: faster than a product that casts
            for target, units in zip(self.sums, _rounded(products), strict=True):
                _add_at(target, places, units)
            taken += count

    def add_one(self, value: float) -> None:
        """Add a value to a sum of one position: `add` without its overhead, to the same bits.

        Raises:
            AggregationError: a value that is not finite, or magnitudes or additions over the limit.
        """
        self._reserve(abs(value) if math.isfinite(value) else math.nan, 1)
        grids = GRIDS[self.levels]
        for level, q in enumerate(grids):
            shift = math.ldexp(1.5, 52 - q)
            rounded = value + shift
            self.sums[level] += np.float64(rounded).view(np.int64)
            value -= rounded - shift

    def merge(self, other: ExactSum) -> None:
        """Add another sum of the same size and levels; associative and commutative.

        Raises:
            AggregationError: sizes or levels differ, or magnitudes or additions over the limit.
        """
        if other.sums.shape != self.sums.shape:
            raise AggregationError(
                f"(levels, size) of merged sums must agree, got {self.sums.shape} and "
                f"{other.sums.shape}"
            )
        self._reserve(other.bound, other.addends)
        np.add(self.sums, other.sums, out=self.sums)

    def total(self) -> Doubles:
        """The sum, shape (size,), as a new array."""
        units = (self.sums << UNUSED) >> UNUSED
        scales = [math.ldexp(1.0, -q) for q in GRIDS[self.levels]]
        total: Doubles = units[0] * scales[0]
        for level in range(1, self.levels):
            total += units[level] * scales[level]  # of at most two: one rounding
        return total

    def _check_shapes(self, values: Array, kept: Bits | Runs | None) -> None:
        """Raise unless there is one value a kept position."""
        if kept is None:
            count = self.size
        elif kept.dtype == np.bool_ and kept.shape == (self.size,):
            count = int(np.count_nonzero(kept))
        elif kept.dtype == np.int64 and kept.ndim == 2 and kept.shape[1] == 2:
            count = int((kept[:, 1] - kept[:, 0]).sum())
            if not _is_ascending(cast(Runs, kept), self.size):
                raise AggregationError(
                    f"runs must be ascending intervals in [0, {self.size}), got others"
                )
        else:
            raise AggregationError(
                f"kept positions must be booleans of shape ({self.size},) or runs of shape (runs, 2), "
                f"got {kept.dtype} of shape {kept.shape}"
            )
        if values.shape != (count,):
            raise AggregationError(f"values must have shape ({count},), got {values.shape}")

    def _reserve(self, magnitude: float, addends: int) -> None:
        """Count addends of at most `magnitude` in, or raise if they could leave the exact range."""
        allowed = limit(self.levels)
        if not math.isfinite(magnitude):
            raise AggregationError(f"addends must be finite, got a magnitude of {magnitude}")
        if self.bound + magnitude > allowed:
            raise AggregationError(
                f"magnitudes must sum to at most {allowed}, got {self.bound} + {magnitude}"
            )
        if self.levels > 1 and self.addends + addends > MAX_ADDENDS:
            raise AggregationError(
                f"a sum of two levels takes at most {MAX_ADDENDS} additions, "
                f"got {self.addends} + {addends}"
            )
        if not self.sums.flags.writeable:  # as it comes out of an object store
            self.sums = self.sums.copy()
        self.bound += magnitude
        self.addends += addends


def _peak(values: Array, weight: float) -> float:
    """max |weight * values| as float64 rounds it, or a NaN or infinity if there is one."""
    if not values.size:
        return 0.0 if math.isfinite(weight) else math.nan
    highest, lowest = -math.inf, math.inf
    for start in range(0, len(values), 2 * BLOCK):  # the second pass finds them in the cache
        block = values[start : start + 2 * BLOCK]
        highest, lowest = np.maximum(highest, block.max()), np.minimum(lowest, block.min())
    with np.errstate(invalid="ignore"):
        return float(abs(np.float64(weight)) * max(abs(highest), abs(lowest)))


def _is_ascending(runs: Runs, size: int) -> bool:
    """Whether intervals lie in [0, size), in order and apart."""
    edges = np.concatenate([[0], runs.ravel(), [size]])
    return bool((np.diff(edges) >= 0).all())


Places = slice | npt.NDArray[np.intp] | list[list[int]]
"""Where a block's values go: an interval, positions, or intervals as four lists: first position, the one
after the last, and the same of the block's values."""


def _pieces(size: int, kept: Bits | Runs | None) -> Iterator[tuple[int, Places]]:
    """Blocks of at most 2 BLOCK values: how many, and where they go."""
    if kept is None:
        return _of_all(size)
    return _of_bits(cast(Bits, kept)) if kept.dtype == np.bool_ else _of_runs(cast(Runs, kept))


def _of_all(size: int) -> Iterator[tuple[int, Places]]:
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        yield stop - start, slice(start, stop)


def _of_bits(bits: Bits) -> Iterator[tuple[int, Places]]:
    for start in range(0, len(bits), BLOCK):
        where = np.flatnonzero(bits[start : start + BLOCK])
        yield len(where), where + start


def _of_runs(runs: Runs) -> Iterator[tuple[int, Places]]:
    """Whole runs, those over BLOCK cut, that begin within the same BLOCK of values."""
    pieces = -(-(runs[:, 1] - runs[:, 0]) // BLOCK)
    nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = np.repeat(runs[:, 0], pieces) + nth * BLOCK
    stops = np.minimum(starts + BLOCK, np.repeat(runs[:, 1], pieces))
    ends = np.cumsum(stops - starts)
    begins = ends - (stops - starts)
    edges = [*np.flatnonzero(np.diff(begins // BLOCK, prepend=-1)).tolist(), len(begins)]
    origins = np.repeat(begins[edges[:-1]], np.diff(edges))
    columns = [each.tolist() for each in (starts, stops, begins - origins, ends - origins)]
    for first, last in itertools.pairwise(edges):
        places = [column[first:last] for column in columns]
        yield places[3][-1], places


def _add_at(target: Integers, places: Places, units: Integers) -> None:
    """Add a block's units where they go."""
    if not isinstance(places, list):
        target[places] += units
        return
    for start, stop, begin, end in zip(*places, strict=True):
        part = target[start:stop]
        np.add(part, units[begin:end], out=part)


def _rounded(addend: Doubles) -> Integers:
    """The biased grid units of addends on each level; both are the same memory.

    Args:
        addend: shape (levels, count), the addends in its first row.
    """
    grids = GRIDS[len(addend)]
    for level, q in enumerate(grids):
        shift = math.ldexp(1.5, 52 - q)
        if level + 1 < len(grids):
            rounded = addend[level] + shift
            np.subtract(addend[level], rounded - shift, out=addend[level + 1])
            addend[level] = rounded
        else:
            np.add(addend[level], shift, out=addend[level])
    return addend.view(np.int64)
