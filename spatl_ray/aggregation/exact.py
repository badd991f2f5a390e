"""Sums that are bit-identical for any order and any grouping of their addends.

Float64 addition is exact, hence associative, on a fixed grid: multiples of g = 2^-q whose partial
sums stay within 2^53 g. So each addend u is first rounded to the grid,

    t = (u + M) - M,    M = 1.5 * 2^(52-q),

which works for |u| <= 2^(51-q): u + M then lies in [2^(52-q), 2^(53-q)], where float64 numbers are
g apart, so the first operation rounds to the grid (|t - u| <= g / 2) and the second is exact. A
zero comes out as +0.0, whatever its sign.

One level, q = 32. |u| <= 2^19; the error is at most 2^-33 an addend. The partial sums stay exact up
to 2^21. Rounding may lengthen an addend by 2^-33, so when the magnitudes |u| sum to at most 2^19,
3 * 2^19 * 2^33 > 2^53 addends are allowed: no run has so many, and they are not counted.

Two levels, q = 20 and q' = 54. |u| <= 2^31, and the coarse sums are exact up to 2^33 by the same
argument. The remainder r = u - t has |r| <= 2^-21. It is exact: where t = 0 trivially, elsewhere
u/2 <= t <= 2u in magnitude, and Sterbenz's lemma holds. On the fine grid |r| <= 2^-21 < 2^(51-q'),
the rounded r stays within 2^-21 (itself a point of the grid), and the error is at most 2^-55 an
addend. N fine addends stay within N 2^-21 <= 2^(53-q') = 2^-1 for N <= 2^20, the number allowed.
The total adds both sums, which rounds once more, to the nearest float64.

What is tracked to raise in time is an upper bound of the sum of magnitudes, the sum of max|u| over
all additions. It is an ordinary float64 sum, and the last bits of *it* do depend on the order; the
limit is a quarter of what stays exact, so that neither this nor the rounding to the grid matters.

References:
    J. Demmel, H. D. Nguyen, "Fast reproducible floating-point summation", ARITH 21, 2013
    (pre-rounding).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Bits, Doubles
from spatl_ray.errors import AggregationError
from spatl_ray.parameters import Array

GRIDS: dict[int, tuple[int, ...]] = {1: (32,), 2: (20, 54)}
"""The exponents q of the grids 2^-q, coarse to fine, by number of levels."""

MAX_ADDENDS = 1 << 20
"""Most additions that a sum of two levels takes."""

BLOCK = 1 << 15
"""Positions handled at a time: the scratch space (256 KiB a level) stays in a core's cache."""


def limit(levels: int) -> float:
    """The largest magnitude that an addend, and the total of magnitudes, may have: 2^(51-q).

    Raises:
        AggregationError: `levels` is neither 1 nor 2.
    """
    if levels not in GRIDS:
        raise AggregationError(f"levels must be 1 or 2, got {levels}")
    return math.ldexp(1.0, 51 - GRIDS[levels][0])


class ExactSum:
    """The exact sum of weighted vectors, each rounded to a fixed grid first.

    levels=1: error at most 2^-33 an addend; levels=2, for float64 work: at most 2^-55 an addend and
    half a unit in the last place of the total.

    Attributes:
        sums: shape (levels, size), the sums on each grid.
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
        self.sums: Doubles = np.zeros((levels, size), dtype=np.float64)
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

    def add(self, values: Array, weight: float = 1.0, positions: Bits | None = None) -> None:
        """Add weight * values, computed in float64, at the kept positions.

        A refused addition leaves the sum as it was.

        Args:
            values: shape (size,), or one entry a kept position, in their order.
            weight: the factor.
            positions: shape (size,), True for a kept position; None for all.

        Raises:
            AggregationError: shapes that do not match, a product that is not finite, or magnitudes
                or additions over the limit.
        """
        self._check_shapes(values, positions)
        if values.dtype not in (np.float32, np.float64):  # 16 bits: exact, and far faster to read
            values = values.astype(np.float64)
        self._reserve(_peak(values, weight), 1)
        scratch = np.empty((2, min(BLOCK, self.size)), dtype=np.float64)
        taken = 0
        for start in range(0, self.size, BLOCK):
            target = self.sums[:, start : start + BLOCK]
            kept = None if positions is None else positions[start : start + BLOCK]
            count = target.shape[1] if kept is None else int(np.count_nonzero(kept))
            product = scratch[0, :count]
            np.multiply(values[taken : taken + count], weight, out=product, dtype=np.float64)
            where = slice(None) if kept is None or kept.all() else np.flatnonzero(kept)
            _deposit(target, where, product, scratch[1, :count])
            taken += count

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
        total: Doubles = self.sums.sum(axis=0)  # of at most two: one rounding
        return total

    def _check_shapes(self, values: Array, positions: Bits | None) -> None:
        """Raise unless there is one value a kept position."""
        if positions is not None and (
            positions.shape != (self.size,) or positions.dtype != np.bool_
        ):
            raise AggregationError(
                f"positions must be booleans of shape ({self.size},), "
                f"got {positions.dtype} of shape {positions.shape}"
            )
        count = self.size if positions is None else int(np.count_nonzero(positions))
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
    with np.errstate(invalid="ignore"):
        return abs(float(weight)) * max(abs(float(values.max())), abs(float(values.min())))


def _deposit(
    target: Doubles, where: slice | npt.NDArray[np.intp], addend: Doubles, spare: Doubles
) -> None:
    """Add `addend` to each grid's sum, coarse to fine; `addend` and `spare` are overwritten."""
    *coarse, finest = GRIDS[len(target)]
    for level, q in enumerate(coarse):
        shift = math.ldexp(1.5, 52 - q)
        np.add(addend, shift, out=spare)
        np.subtract(spare, shift, out=spare)
        target[level, where] += spare
        np.subtract(addend, spare, out=addend)
    shift = math.ldexp(1.5, 52 - finest)
    np.add(addend, shift, out=addend)
    np.subtract(addend, shift, out=addend)
    target[-1, where] += addend
