"""The samplers, and from a sampler's config to the sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np

from spatl_ray import config, plugins, seeding
from spatl_ray.arrays import Doubles, Integers, readonly
from spatl_ray.errors import ConfigError, DataError
from spatl_ray.federation.sampler import (
    Draw,
    Sampler,
    checked,
    checked_chance,
)
from spatl_ray.federation.successive import successive

STEPS = 100
"""Of Newton's method, at most."""


class Uniform(Sampler):
    """Every set of available clients of the wanted size is as likely as any other."""

    def cohort(self, draw: Draw) -> Integers:
        clients = len(self.samples)

        def propose(count: int) -> Integers:
            return draw.generator.choice(clients, min(count, clients), replace=False)

        return successive(draw, clients, propose, self.chance)


class BySamples(Sampler):
    """Without replacement, each draw in proportion to training samples among those left."""

    def bind(self, samples: Integers, seed: int, size: int) -> None:
        super().bind(samples, seed, size)
        self._ends = np.cumsum(samples, dtype=np.int64)
        self._rate = inclusion_rate(samples, size)

    def cohort(self, draw: Draw) -> Integers:
        def propose(count: int) -> Integers:
            # The owners of that many training samples, each sample as likely as any other.
            drawn = draw.generator.integers(self._ends[-1], size=count)
            return np.searchsorted(self._ends, drawn, side="right").astype(np.int64)

        return successive(draw, len(self._ends), propose, self._weight)

    def _weight(self, clients: Integers) -> Doubles:
        """Training samples over their mean."""
        shares: Doubles = self.samples[clients] * (len(self._ends) / self._ends[-1])
        return shares

    def chance(self, clients: Integers) -> Doubles:
        """1 - exp(-rate n_i), see `inclusion_rate`."""
        chance: Doubles = -np.expm1(-self._rate * self.samples[clients])
        return chance


def inclusion_rate(samples: Integers, size: int) -> float:
    """The rate r for which sum_i (1 - exp(-r n_i)) is `size`; infinite if all are drawn.

    1 - exp(-r n_i) approximates the probability that client i is among `size` successive draws in
    proportion to n_i without replacement: n_i size / n for small cohorts, 1 for whole ones.

    References:
        Rosen, "Asymptotic theory for successive sampling with varying probabilities without
        replacement", Annals of Mathematical Statistics 43, 1972.
    """
    if size >= len(samples):
        return math.inf
    rate = size / float(samples.sum())
    for _ in range(STEPS):
        # Newton's steps on a concave function from below: none goes too far.
        left = np.exp(-rate * samples)
        step = (size - (len(samples) - left.sum())) / float((samples * left).sum())
        rate += step
        if step <= 1e-12 * rate:
            break
    return rate


class RoundRobin(Sampler):
    """Cohort t is the clients at places [t m, (t + 1) m) mod N of one seeded order.

    Once somebody there could not take part, or has had another number of turns than this gives,
    the available clients with the fewest turns are drawn, in that order.
    """

    def bind(self, samples: Integers, seed: int, size: int) -> None:
        super().bind(samples, seed, size)
        self._order = seeding.generator(seed, "round_robin").permutation(len(samples))

    def cohort(self, draw: Draw) -> Integers:
        clients = len(self._order)
        passes, places = np.divmod(draw.round * draw.size + np.arange(draw.size), clients)
        next_ones = self._order[places]
        if draw.available(next_ones).all() and (draw.turns(next_ones) == passes).all():
            return next_ones
        there = self._order[draw.available(self._order)]
        return there[np.argsort(draw.turns(there), kind="stable")[: draw.size]]


class PowerOfChoice(BySamples):
    """Of d candidates, drawn as `BySamples` does, those with the highest losses.

    Equal losses go in the order drawn; losses that are no number come last. Which candidates are
    drawn depends on their losses, on purpose: `chance` is that of being a candidate.

    Args:
        spec: d, and which losses.

    References:
        Cho, Wang, Joshi, "Towards understanding biased client selection in federated learning",
        AISTATS 2022, arXiv 2010.01243: pow-d (`current` losses) and rpow-d (`last` ones).
    """

    def __init__(self, spec: config.PowerOfChoice) -> None:
        self._spec = spec

    def bind(self, samples: Integers, seed: int, size: int) -> None:
        super().bind(samples, seed, self._spec.candidates)

    def cohort(self, draw: Draw) -> Integers:
        candidates = super().cohort(replace(draw, size=self._spec.candidates))
        if len(candidates) <= draw.size:
            return candidates
        ask = draw.current_losses if self._spec.loss == "current" else draw.last_losses
        highest_first = np.argsort(-ask(candidates), kind="stable")
        return candidates[highest_first[: draw.size]]


class Checked(Sampler):
    """An own sampler whose every answer is checked.

    Args:
        inner: the own sampler.
        name: its dotted name, for errors.
    """

    def __init__(self, inner: Sampler, name: str) -> None:
        self.inner = inner
        self._name = name

    def bind(self, samples: Integers, seed: int, size: int) -> None:
        super().bind(samples, seed, size)
        with self._blamed("bind"):
            self.inner.bind(readonly(samples), seed, size)

    def cohort(self, draw: Draw) -> Integers:
        with self._blamed("cohort"):
            cohort = self.inner.cohort(draw)
        return checked(cohort, draw, len(self.samples), self._name)

    def chance(self, clients: Integers) -> Doubles:
        with self._blamed("chance"):
            chance = self.inner.chance(readonly(clients))
        return checked_chance(chance, clients, self._name)

    def _blamed(self, method: str) -> AbstractContextManager[None]:
        return plugins.blamed("sampler.name", self._name, f"in {method}")


SAMPLERS: Mapping[str, Callable[[Any], Sampler]] = {
    "uniform": lambda spec: Uniform(),
    "samples": lambda spec: BySamples(),
    "round_robin": lambda spec: RoundRobin(),
    "power_of_choice": PowerOfChoice,
}


def make_sampler(spec: config.Sampler, samples: Integers, seed: int, size: int) -> Sampler:
    """The sampler of an experiment, bound to its clients.

    Args:
        spec: which one; an own one is called with its `options` mapping.
        samples: training samples of each client, shape (clients,).
        seed: the experiment's.
        size: clients wanted in a round.

    Raises:
        ConfigError: an own sampler that cannot be imported, takes other options, or is none.
        DataError: a client without a training sample.
        PluginError: an own sampler that raises something else.
    """
    if samples.min(initial=1) < 1:
        client = int(np.argmin(samples))
        raise DataError(
            f"a sampler needs at least one training sample a client, got {samples[client]} for "
            f"client {client}"
        )
    sampler = _unbound(spec)
    sampler.bind(samples, seed, size)
    return sampler


def _unbound(spec: config.Sampler) -> Sampler:
    if not isinstance(spec, config.OwnSampler):
        return SAMPLERS[spec.name](spec)
    factory = plugins.load(spec.name, "sampler.name")
    try:
        with plugins.blamed("sampler.name", spec.name, passed=plugins.MISFITS):
            found = factory(spec.options)
    except plugins.MISFITS as error:
        raise ConfigError(f"sampler.options do not fit {spec.name}: {error!r}") from error
    if not isinstance(found, Sampler):
        raise ConfigError(
            "sampler.name must name a subclass of spatl_ray.federation.sampler.Sampler, "
            f"got {spec.name!r}: a {type(found).__name__}"
        )
    return Checked(found, spec.name)
