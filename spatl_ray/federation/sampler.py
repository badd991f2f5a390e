"""What a sampler is: it draws a round's cohort among the clients that can take part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spatl_ray.arrays import Bits, Doubles, Integers
from spatl_ray.errors import ConfigError

LEAST_CHANCE = 1e-12
"""Weights are divided by the chance: of smaller ones, sums would not be finite."""


@dataclass(frozen=True, eq=False)
class Draw:
    """What a sampler may use in one round.

    Attributes:
        round: the round, from 0.
        size: clients wanted, at least 1.
        generator: seeded for this round; the only randomness.
        available: which of the given clients can take part in this round.
        turns: how often each of the given clients was drawn before.
        last_losses: mean training loss of the given clients' last participation; infinite before.
        current_losses: training loss of the model that the given clients would receive now; costs
            each of them a broadcast.
    """

    round: int
    size: int
    generator: np.random.Generator
    available: Callable[[Integers], Bits]
    turns: Callable[[Integers], Integers]
    last_losses: Callable[[Integers], Doubles]
    current_losses: Callable[[Integers], Doubles]


class Sampler(ABC):
    """Draws cohorts. What it keeps is what `bind` made of the data; nothing passes between rounds.

    Attributes:
        samples: training samples of each client, shape (clients,).
        seed: the experiment's.
        size: clients wanted in a round.
    """

    samples: Integers
    seed: int
    size: int

    def bind(self, samples: Integers, seed: int, size: int) -> None:
        """Learn about the clients; called once, before the first cohort.

        Args:
            samples: training samples of each client, shape (clients,), at least 1 each; read-only.
            seed: the experiment's.
            size: clients wanted in a round.
        """
        self.samples = samples
        self.seed = seed
        self.size = size

    @abstractmethod
    def cohort(self, draw: Draw) -> Integers:
        """The round's cohort, in any order.

        Returns:
            Distinct available clients: `draw.size`, fewer only if fewer are available.
        """

    def chance(self, clients: Integers) -> Doubles:
        """Probability, up to a factor, that each of some clients is in a cohort; 1 if it is uniform."""
        return np.ones(len(clients))


def checked(cohort: object, draw: Draw, clients: int, name: str) -> Integers:
    """An own sampler's cohort as int64, or an error.

    Args:
        cohort: what it returned.
        draw: what it was drawn from.
        clients: number N of clients.
        name: the sampler's dotted name.

    Raises:
        ConfigError: no integer array, a client that does not exist, comes twice or cannot take part,
            or more clients than wanted.
    """
    if not isinstance(cohort, np.ndarray) or cohort.dtype.kind not in "iu" or cohort.ndim != 1:
        raise _broken(name, draw, "be a one-dimensional integer array", _described(cohort))
    if len(cohort) > draw.size:
        raise _broken(name, draw, f"have at most {draw.size} clients", str(len(cohort)))
    outside = (cohort < 0) | (cohort >= clients)
    if outside.any():
        raise _broken(name, draw, f"be in [0, {clients})", f"client {cohort[outside][0]}")
    members, counts = np.unique(cohort, return_counts=True)
    if len(members) < len(cohort):
        raise _broken(name, draw, "be distinct", f"client {members[counts > 1][0]} twice")
    own = cohort.astype(np.int64)
    missing = ~draw.available(own)
    if missing.any():
        got = f"client {own[missing][0]}, who cannot take part"
        raise _broken(name, draw, "be available", got)
    return own


def checked_chance(chance: object, clients: Integers, name: str) -> Doubles:
    """An own sampler's relative probabilities of some clients as float64, or an error.

    Raises:
        ConfigError: not one finite number a client, of at least `LEAST_CHANCE`.
    """
    numbers = isinstance(chance, np.ndarray) and chance.dtype.kind in "iuf"
    values = np.asarray(chance, np.float64) if numbers else np.empty(0)
    if not numbers or values.shape != clients.shape:
        raise ConfigError(
            f"sampler.name {name!r}: chance must be an array of {len(clients)} numbers, one a "
            f"client, got {_described(chance)}"
        )
    bad = ~(np.isfinite(values) & (values >= LEAST_CHANCE))
    if bad.any():
        raise ConfigError(
            f"sampler.name {name!r}: chance must be finite and at least {LEAST_CHANCE:g}, got "
            f"{values[bad][0]:g} for client {clients[bad][0]}"
        )
    return values


def _broken(name: str, draw: Draw, rule: str, got: str) -> ConfigError:
    return ConfigError(
        f"sampler.name {name!r}: the cohort of round {draw.round} must {rule}, got {got}"
    )


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} with shape {value.shape}"
    return f"a {type(value).__name__}"
