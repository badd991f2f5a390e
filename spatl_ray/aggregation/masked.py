"""Masked weighted sums: what an algorithm declares, added up exactly, in any order and grouping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
import numpy.typing as npt

from spatl_ray.aggregation.exact import ExactSum, Runs, limit
from spatl_ray.arrays import Bits, l2_norm
from spatl_ray.errors import AggregationError
from spatl_ray.parameters import Array, Space
from spatl_ray.update import Mask, MaskKind, Part, Parts

Double = npt.NDArray[np.float64]

LONG = 512
"""Positions of a space for each run of a mask from which on adding run by run is faster."""


class Weight(Enum):
    """A client's factor in a sum.

    COHORT is its objective weight p_i normalised over the round's cohort; POPULATION is p_i itself,
    whose sum over all N clients is 1.
    """

    COHORT = "cohort"
    POPULATION = "population"


Denominator = Literal["senders", "cohort"]


@dataclass(frozen=True)
class Accumulator:
    """One sum over the accepted updates: sum_i weight_i m_ij v_ij, over D_j.

    Attributes:
        name: of the term that is summed.
        space: of the term's vector.
        weight: w_i.
        denominator: D_j is the sum of w_i over those who sent position j, or over the whole
            accepted cohort; None leaves the sum as it is.
    """

    name: str
    space: Space
    weight: Weight = Weight.COHORT
    denominator: Denominator | None = "senders"


@dataclass(frozen=True)
class Weights:
    """A client's two weights in a round."""

    cohort: float
    population: float

    def of(self, weight: Weight) -> float:
        """The one that an accumulator names."""
        return self.cohort if weight is Weight.COHORT else self.population


@dataclass(frozen=True, eq=False)
class Total:
    """A finished accumulator.

    Attributes:
        values: shape (space.size,), 0 where nothing was sent.
        sent: positions that somebody sent, or None for all.
        cosine: mean over the added vectors of their cosine with the sum of them all, weighted by weight
            times length: |sum_i w_i v_i| / sum_i w_i |v_i|, with v_i zero at positions that were not
            sent. None if lengths were not noted, or are all zero.
    """

    values: Double
    sent: Bits | None
    cosine: float | None = None

    def apply(self, vector: Array, scale: float = 1.0) -> Array:
        """vector + scale * values, in the vector's dtype; what nobody sent keeps its bits."""
        moved: Array = (vector.astype(np.float64) + scale * self.values).astype(vector.dtype)
        return moved if self.sent is None else np.where(self.sent, moved, vector)


class Accumulation:
    """An accumulator's running sums: sum w m v, sum w m and sum w.

    Weights of channel masks are summed by channel, those of element masks by position.
    """

    def __init__(self, accumulator: Accumulator, levels: int) -> None:
        self.accumulator = accumulator
        self.levels = levels
        self.values = ExactSum(accumulator.space.size, levels)
        self.cohort = ExactSum(1, levels)
        self.whole = ExactSum(1, levels)
        self.lengths = ExactSum(1, levels)
        self.channels: ExactSum | None = None
        self.masked: ExactSum | None = None

    def add(self, part: Part, weight: float) -> None:
        """Add one client's term."""
        space, mask = self.accumulator.space, part.mask
        self.values.add(part.values, weight, _kept(mask, space))
        self.cohort.add_one(weight)
        if mask.bits is None:
            self.whole.add_one(weight)
        elif mask.kind is MaskKind.CHANNEL:
            # The last one counts for what no group covers.
            bits = np.append(mask.bits, True)
            self._of_channels().add(np.ones(np.count_nonzero(bits)), weight, bits)
        else:
            self._of_positions().add(np.ones(len(part.values)), weight, mask.bits)

    def note_length(self, part: Part, weight: float) -> None:
        """Add w |v| of a term, which `add` does without; what judging lets through never overflows."""
        longest = limit(self.levels) / 4
        self.lengths.add_one(weight * min(l2_norm(part.values), longest))

    def merge(self, other: Accumulation) -> None:
        """Add another group's sums."""
        self.values.merge(other.values)
        self.lengths.merge(other.lengths)
        self.cohort.merge(other.cohort)
        self.whole.merge(other.whole)
        if other.channels is not None:
            self._of_channels().merge(other.channels)
        if other.masked is not None:
            self._of_positions().merge(other.masked)

    def total(self) -> Total:
        """The sum over its denominator."""
        whole = float(self.whole.total()[0])
        senders = self._senders(whole)
        sent = np.broadcast_to(senders > 0, (self.accumulator.space.size,))
        values = self.values.total()
        cosine = self._cosine(values)
        if self.accumulator.denominator is not None:
            by_senders = self.accumulator.denominator == "senders"
            divisor = senders if by_senders else self.cohort.total()
            values = np.divide(values, divisor, out=np.zeros_like(values), where=sent)
        return Total(values, None if whole > 0 else sent, cosine)

    def _cosine(self, values: Double) -> float | None:
        """How far the terms point the same way; rounding to the grid may not take it over 1."""
        length = float(self.lengths.total()[0])
        return min(l2_norm(values) / length, 1.0) if length > 0 else None

    def _senders(self, whole: float) -> Double:
        """Weights of those who sent each position; shape () if all sent all."""
        senders: Double = np.asarray(whole)
        if self.channels is not None:
            *channels, rest = self.channels.total()
            senders = senders + self.accumulator.space.spread(np.array(channels), rest)
        return senders if self.masked is None else senders + self.masked.total()

    def _of_channels(self) -> ExactSum:
        """Made when the first channel mask comes."""
        if self.channels is None:
            self.channels = ExactSum(self.accumulator.space.channels + 1, self.levels)
        return self.channels

    def _of_positions(self) -> ExactSum:
        """Made when the first element mask comes."""
        if self.masked is None:
            self.masked = ExactSum(self.accumulator.space.size, self.levels)
        return self.masked


def _kept(mask: Mask, space: Space) -> Bits | Runs | None:
    """Where a mask's values go: as runs if they are long, else as positions."""
    if mask.kind is not MaskKind.CHANNEL:
        return mask.positions(space)
    runs = mask.runs(space)
    return runs if space.size >= LONG * len(runs) else mask.positions(space)


class Partial:
    """The sums of one group of clients: small, whatever the number of clients.

    Args:
        accumulators: what the algorithm declares.
        levels: precision of the sums (see `exact`).
    """

    def __init__(self, accumulators: Iterable[Accumulator], levels: int) -> None:
        # Population weights shrink with N: on one grid their products would be lost.
        self.accumulations = {
            a.name: Accumulation(a, 2 if a.weight is Weight.POPULATION else levels)
            for a in accumulators
        }

    def add(self, terms: Parts, weights: Weights) -> None:
        """Add the terms of one accepted update."""
        if terms.keys() != self.accumulations.keys():
            raise AggregationError(
                f"terms must be {sorted(self.accumulations)}, got {sorted(terms)}"
            )
        for name, accumulation in self.accumulations.items():
            accumulation.add(terms[name], weights.of(accumulation.accumulator.weight))

    def note_length(self, name: str, terms: Parts, weights: Weights) -> None:
        """Note how long one of the terms is, if there is such a one: see `Total.cosine`."""
        if name in self.accumulations:
            accumulation = self.accumulations[name]
            accumulation.note_length(terms[name], weights.of(accumulation.accumulator.weight))

    def merge(self, other: Partial) -> None:
        """Add another group's sums."""
        for name, accumulation in self.accumulations.items():
            accumulation.merge(other.accumulations[name])

    def totals(self) -> Mapping[str, Total]:
        """All accumulators, finished."""
        return {name: a.total() for name, a in self.accumulations.items()}
