"""Who can take part in a round; known of any client alone, so that nobody needs to ask for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from spatl_ray import config, seeding
from spatl_ray.arrays import Bits, Integers
from spatl_ray.federation import hashing
from spatl_ray.federation.trace import Trace, read_trace

Availability = Callable[[int, Integers], Bits]
"""Maps a round and some clients to which of them can take part in it.

The clients must be in [0, N): of others the answer means nothing, so the caller checks.
"""

ROUNDS = 2**31
"""Rounds in a trace must be below this."""


def make_availability(spec: config.Availability, clients: int, seed: int) -> Availability:
    """Who can take part, by an experiment's config.

    Args:
        spec: which kind, and its parameters.
        clients: number N of clients.
        seed: the experiment's.

    Raises:
        ConfigError: a trace that is neither CSV nor Parquet.
        DataError: a trace that cannot be read, or breaks a rule.
    """
    return KINDS[spec.name](spec, clients, seed)


def ever_there(available: Availability, clients: int, rounds: int) -> Bits:
    """Which clients are there in any of the rounds 0 to `rounds` - 1, of a trace or beside newcomers.

    Chance and periods may have anybody there: of them, all.

    Args:
        available: of `make_availability`.
        clients: number N of clients.
        rounds: of the run.
    """
    if not isinstance(available, Presence):
        return np.ones(clients, np.bool_)
    there = np.zeros(clients, np.bool_)
    client, first = np.divmod(available.starts, available.span)
    there[client[first < rounds]] = True
    return there


def _always(spec: config.Always, clients: int, seed: int) -> Availability:
    return lambda round_, asked: np.ones(len(asked), np.bool_)


def _key(seed: int, stream: str, round_: int = seeding.ANY) -> int:
    """A 64-bit key for `hashing`."""
    return int(seeding.generator(seed, stream, round_).integers(2**64, dtype=np.uint64))


def _random(spec: config.Random, clients: int, seed: int) -> Availability:
    """u < p, u uniform in [0, 1), one for each round and client."""

    def available(round_: int, asked: Integers) -> Bits:
        bits: Bits = hashing.uniform(_key(seed, "availability", round_), asked) < spec.p
        return bits

    return available


def _periodic(spec: config.Periodic, clients: int, seed: int) -> Availability:
    """(round + phase) mod period < share period, rounded to the nearest, at least 1.

    A client's phase is uniform in [0, period).
    """
    length = max(1, int(spec.share * spec.period + 0.5))
    key = _key(seed, "availability phase")

    def available(round_: int, asked: Integers) -> Bits:
        phase = (hashing.words(key, asked) % np.uint64(spec.period)).astype(np.int64)
        bits: Bits = (round_ + phase) % spec.period < length
        return bits

    return available


@dataclass(frozen=True, eq=False)
class Presence:
    """Who is there when, from rows (client, first round, last round); rows may overlap.

    Attributes:
        starts: client * span + first round, ascending.
        ends: the highest client * span + last round of the rows up to each.
        span: more than any last round by 2, so that no row reaches into the next client's numbers
            and round span - 1 is in no row.
        period: rounds after which it starts again, or None.
    """

    starts: Integers
    ends: Integers
    span: int
    period: int | None

    def __call__(self, round_: int, asked: Integers) -> Bits:
        """Whether some row up to the asked number ends at it or later."""
        within = round_ if self.period is None else round_ % self.period
        number = asked * self.span + min(within, self.span - 1)
        row = np.searchsorted(self.starts, number, side="right") - 1
        bits: Bits = (row >= 0) & (self.ends[row] >= number)
        return bits


def _traced(spec: config.Traced, clients: int, seed: int) -> Availability:
    """The rows of a file.

    Raises:
        ConfigError, DataError: see `make_availability`.
    """
    columns = ("client", "first_round", "last_round")
    trace = read_trace("availability.file", spec.file, columns)
    client = trace.integers("client", clients)
    first, last = _rounds(trace, spec.period)
    span = int(last.max()) + 2
    starts, ends = client * span + first, client * span + last
    order = np.argsort(starts, kind="stable")
    return Presence(starts[order], np.maximum.accumulate(ends[order]), span, spec.period)


def _rounds(trace: Trace, period: int | None) -> tuple[Integers, Integers]:
    """First and last rounds, first <= last < period."""
    first, last = (trace.integers(column, ROUNDS) for column in ("first_round", "last_round"))
    trace.require("last_round", last >= first, "be at least first_round")
    if period is not None:
        trace.require("last_round", last < period, f"be less than availability.period, {period}")
    return first, last


def newcomers(spec: config.Availability, clients: int, seed: int) -> Bits:
    """Which clients never take part because they are newcomers, shape (clients,).

    Args:
        spec: who can take part; without newcomers there are none.
        clients: number N of clients.
        seed: the experiment's.
    """
    new = np.zeros(clients, np.bool_)
    if isinstance(spec, config.Newcomers):
        count = int(spec.share * clients + 0.5)
        generator = seeding.generator(seed, "newcomers")
        new[generator.choice(clients, count, replace=False)] = True
    return new


def _beside_newcomers(spec: config.Newcomers, clients: int, seed: int) -> Availability:
    """All others: they are there in each period of one round."""
    numbers = 2 * np.flatnonzero(~newcomers(spec, clients, seed))
    return Presence(numbers, numbers, span=2, period=1)


KINDS: Mapping[str, Callable[..., Availability]] = {
    "always": _always,
    "random": _random,
    "periodic": _periodic,
    "trace": _traced,
    "newcomers": _beside_newcomers,
}
