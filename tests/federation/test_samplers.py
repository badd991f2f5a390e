"""Samplers: the laws that all keep, and what each one draws."""

from __future__ import annotations

import tracemalloc
from itertools import combinations, permutations

import numpy as np
import pytest
from cohort_draws import chi_square, some_draw
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spatl_ray import config, seeding
from spatl_ray.arrays import Bits, Integers
from spatl_ray.errors import DataError
from spatl_ray.federation.availability import make_availability
from spatl_ray.federation.sampler import Sampler
from spatl_ray.federation.samplers import SAMPLERS, make_sampler

DRAWS = 3000
LEVEL = 1 - 1e-6
"""A right sampler exceeds the chi-square bound with another seed once in a million."""

SPECS = [
    config.Uniform(),
    config.BySamples(),
    config.RoundRobin(),
    config.PowerOfChoice(candidates=7),
    config.PowerOfChoice(candidates=7, loss="current"),
]
all_samplers = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
counts_of_samples = st.lists(st.integers(1, 50), min_size=1, max_size=40)


def bound(
    spec: config.Sampler, samples: list[int] | Integers, seed: int = 0, size: int = 2
) -> Sampler:
    return make_sampler(spec, np.array(samples, np.int64), seed, size)


def by_number(clients: Integers) -> Integers:
    """Losses: the higher the client's number, the higher."""
    return clients.astype(np.float64)


def mask(clients: int, there: tuple[int, ...]) -> Bits:
    bits = np.zeros(clients, bool)
    bits[list(there)] = True
    return bits


def test_every_sampler_of_the_config_is_there() -> None:
    assert {spec.name for spec in SPECS} == SAMPLERS.keys()


@all_samplers
@given(samples=counts_of_samples, data=st.data())
def test_a_cohort_is_distinct_available_and_full(
    spec: config.Sampler, samples: list[int], data: st.DataObject
) -> None:
    clients = len(samples)
    there = np.array(data.draw(st.lists(st.booleans(), min_size=clients, max_size=clients)))
    size = data.draw(st.integers(1, clients + 3))
    if isinstance(spec, config.PowerOfChoice):
        size = min(size, spec.candidates)
    round_ = data.draw(st.integers(0, 10**6))
    draws = [some_draw(size, round_, 1, there, by_number, by_number) for _ in range(2)]
    sampler = bound(spec, samples)
    cohort, again = (sampler.cohort(draw) for draw in draws)
    assert cohort.dtype == np.int64
    assert len(cohort) == len(set(cohort.tolist())) == min(size, there.sum())
    assert there[cohort].all()
    assert np.array_equal(cohort, again)
    assert np.array_equal(
        cohort, bound(spec, samples).cohort(some_draw(size, round_, 1, there, by_number, by_number))
    )


@all_samplers
def test_a_population_of_which_hardly_anybody_is_there(spec: config.Sampler) -> None:
    there = mask(10_000, (3, 77, 4096, 9999))
    sampler = bound(spec, np.ones(10_000))
    some = sampler.cohort(some_draw(3, 5, there=there, last=by_number, current=by_number))
    assert len(set(some.tolist())) == 3
    assert there[some].all()
    every = sampler.cohort(some_draw(6, 5, there=there, last=by_number, current=by_number))
    assert sorted(every.tolist()) == [3, 77, 4096, 9999]


@all_samplers
def test_nobody_there_is_an_empty_cohort(spec: config.Sampler) -> None:
    cohort = bound(spec, np.ones(100)).cohort(some_draw(5, there=np.zeros(100, bool)))
    assert cohort.shape == (0,)


@all_samplers
def test_a_client_without_samples_is_refused(spec: config.Sampler) -> None:
    with pytest.raises(DataError, match=r"at least one training sample a client, got 0 for .* 2"):
        bound(spec, [3, 1, 0, 4])


@pytest.mark.parametrize(
    ("clients", "there", "size"),
    [
        (6, (0, 1, 2, 3, 4, 5), 3),  # The first proposals are enough.
        (6, (0, 2, 3, 4, 5), 3),  # The scan completes what the first proposals found.
        (64, (1, 2, 33, 63), 2),  # Several rounds of proposals, then the scan.
    ],
)
def test_uniform_makes_every_set_equally_likely(
    clients: int, there: tuple[int, ...], size: int
) -> None:
    sampler = bound(config.Uniform(), np.arange(1, clients + 1))
    sets = list(combinations(there, size))
    counts = dict.fromkeys(sets, 0)
    for round_ in range(DRAWS):
        cohort = sampler.cohort(some_draw(size, round_, there=mask(clients, there)))
        counts[tuple(sorted(cohort.tolist()))] += 1
    limit = stats.chi2.ppf(LEVEL, len(sets) - 1)
    assert chi_square(list(counts.values()), [1] * len(sets)) < limit


@pytest.mark.parametrize(
    ("others", "there"),
    [
        (0, (0, 1, 2, 3)),
        (60, (0, 1, 2, 3)),  # Proposals and the scan both add to one cohort.
    ],
)
def test_samples_are_successive_draws(others: int, there: tuple[int, ...]) -> None:
    """P(i, then j) = w_i / W * w_j / (W - w_i), W the sum over the available ones."""
    weights = np.array([1, 2, 3, 6] + [2] * others)
    sampler = bound(config.BySamples(), weights)
    pairs = list(permutations(there, 2))
    counts = dict.fromkeys(pairs, 0)
    for round_ in range(DRAWS):
        cohort = sampler.cohort(some_draw(2, round_, there=mask(4 + others, there)))
        counts[tuple(cohort.tolist())] += 1
    total = weights[list(there)].sum()
    chances = [weights[i] / total * weights[j] / (total - weights[i]) for i, j in pairs]
    assert chi_square(list(counts.values()), chances) < stats.chi2.ppf(LEVEL, len(pairs) - 1)


def test_weights_on_one_client_do_not_stall() -> None:
    """Proposals name client 0 for ever; the scan draws the others, uniformly."""
    samples = np.ones(50, np.int64)
    samples[0] = 2**60
    sampler = bound(config.BySamples(), samples)
    counts = np.zeros(50)
    for round_ in range(DRAWS):
        cohort = sampler.cohort(some_draw(3, round_))
        assert cohort[0] == 0
        counts[cohort] += 1
    assert chi_square(counts[1:], [1] * 49) < stats.chi2.ppf(LEVEL, 48)


@all_samplers
def test_a_large_population_costs_what_its_cohort_does(spec: config.Sampler) -> None:
    """1,000 of a million, half of them available: no array as long as the population.

    Round robin looks at all only where somebody is missing: here everybody is available to it.
    """
    clients, size = 10**6, 1000
    if isinstance(spec, config.PowerOfChoice):
        spec = config.PowerOfChoice(candidates=1500, loss=spec.loss)
    sampler = bound(spec, np.arange(1, clients + 1))
    there = None if isinstance(spec, config.RoundRobin) else np.arange(clients) % 2 == 0
    draw = some_draw(size, 9, there=there, last=by_number, current=by_number)
    tracemalloc.start()
    try:
        cohort = sampler.cohort(draw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(cohort) == size
    assert peak < clients  # Bytes: less than one a client.


def test_uniform_of_all_is_numpys_choice() -> None:
    expected = seeding.generator(4, "cohort", 2).choice(1000, 30, replace=False)
    cohort = bound(config.Uniform(), np.ones(1000)).cohort(some_draw(30, 2, 4))
    assert np.array_equal(cohort, expected)


@given(samples=counts_of_samples, data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_round_robin_counts_differ_by_at_most_one(
    samples: list[int], data: st.DataObject, seed: int
) -> None:
    clients = len(samples)
    size = data.draw(st.integers(1, clients))
    sampler = bound(config.RoundRobin(), samples, seed)
    counts = np.zeros(clients, np.int64)
    for round_ in range(25):
        counts[sampler.cohort(some_draw(size, round_, turns=counts))] += 1
        assert np.ptp(counts) <= 1
        assert counts.sum() == (round_ + 1) * size


def test_round_robin_takes_those_with_the_fewest_turns_who_are_there() -> None:
    sampler = bound(config.RoundRobin(), np.ones(9))
    order = np.concatenate([sampler.cohort(some_draw(9, 0))])
    turns, there = np.zeros(9, int), np.ones(9, bool)
    turns[order[:4]] = 1
    there[order[[4, 6, 7]]] = False
    cohort = sampler.cohort(some_draw(3, 1, there=there, turns=turns))
    assert cohort.tolist() == order[[5, 8, 0]].tolist()


def test_round_robin_starves_nobody_where_clients_come_and_go() -> None:
    """The period of the clients and that of the order resonate: 20 clients, 5 a round, period 4."""
    sampler = bound(config.RoundRobin(), np.ones(20))
    available = make_availability(config.Periodic(period=4, share=0.5), 20, 0)
    turns = np.zeros(20, int)
    for round_ in range(200):
        there = available(round_, np.arange(20))
        turns[sampler.cohort(some_draw(5, round_, there=there, turns=turns))] += 1
    assert turns.sum() == 1000
    assert np.ptp(turns) <= 3


def test_round_robins_order_depends_on_the_seed_only() -> None:
    orders = [
        bound(config.RoundRobin(), np.ones(20), seed).cohort(some_draw(20, 0, draws)).tolist()
        for seed, draws in ((0, 0), (0, 5), (1, 0))
    ]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("spec", [config.Uniform(), config.RoundRobin()])
def test_the_chance_is_even(spec: config.Sampler) -> None:
    assert bound(spec, [2, 4, 6]).chance(np.array([0, 2, 1])).tolist() == [1, 1, 1]


@pytest.mark.parametrize("size", [1, 3, 6, 8])
def test_the_chance_is_that_of_being_in_a_cohort(size: int) -> None:
    """Rosen's approximation: within 0.06 of the share of 4,000 cohorts (0.008 is one sigma at most)."""
    samples = np.array([5, 10, 20, 20, 40, 60, 80, 120])
    sampler = bound(config.BySamples(), samples, size=size)
    counts = np.zeros(8)
    for round_ in range(4000):
        counts[sampler.cohort(some_draw(size, round_))] += 1
    chance = sampler.chance(np.arange(8))
    assert chance.sum() == pytest.approx(size)
    assert np.abs(counts / 4000 - chance).max() < 0.06
    if size == 8:
        assert chance.tolist() == [1.0] * 8


def test_candidates_of_power_of_choice_are_as_likely_as_draws() -> None:
    samples = [5, 10, 20, 20, 40]
    chosen = bound(config.PowerOfChoice(candidates=3), samples, size=2).chance(np.arange(5))
    drawn = bound(config.BySamples(), samples, size=3).chance(np.arange(5))
    assert chosen.tolist() == drawn.tolist()
