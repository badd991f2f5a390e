"""Power of choice: candidates by samples, then the highest losses."""

from __future__ import annotations

import numpy as np
import pytest
from cohort_draws import some_draw
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray import config
from spatl_ray.arrays import Doubles, Integers
from spatl_ray.federation.sampler import Sampler
from spatl_ray.federation.samplers import make_sampler


def bound(spec: config.Sampler, samples: list[int] | Integers) -> Sampler:
    return make_sampler(spec, np.array(samples, np.int64), 0, 2)


def by_number(clients: Integers) -> Doubles:
    """Losses: the higher the client's number, the higher."""
    return clients.astype(np.float64)


@given(samples=st.lists(st.integers(1, 50), min_size=2, max_size=30), data=st.data())
def test_power_of_choice_of_all_takes_the_highest_losses(
    samples: list[int], data: st.DataObject
) -> None:
    clients = len(samples)
    size = data.draw(st.integers(1, clients - 1))
    losses = np.array(data.draw(st.permutations(range(clients))), np.float64)
    sampler = bound(config.PowerOfChoice(candidates=clients), samples)
    cohort = sampler.cohort(some_draw(size, last=lambda asked: losses[asked]))
    assert cohort.tolist() == np.argsort(-losses)[:size].tolist()


@given(seed=st.integers(0, 1000), size=st.integers(1, 99))
def test_power_of_choice_draws_candidates_by_samples(seed: int, size: int) -> None:
    """Of equal losses, here of remainders by 3, the first drawn come first."""
    samples = np.arange(1, 401)
    candidates = bound(config.BySamples(), samples).cohort(some_draw(100, 0, seed)).tolist()
    spec = config.PowerOfChoice(candidates=100)
    tied = some_draw(size, 0, seed, last=lambda asked: asked % 3.0)
    first = sorted(candidates, key=lambda client: -(client % 3))[:size]
    assert bound(spec, samples).cohort(tied).tolist() == first
    ranked = some_draw(size, 0, seed, last=by_number)
    highest = sorted(candidates, reverse=True)[:size]
    assert bound(spec, samples).cohort(ranked).tolist() == highest


def test_power_of_choice_takes_newcomers_first_and_broken_losses_last() -> None:
    losses = np.array([9.0, np.inf, np.nan, 1.0, np.inf, 3.0])
    sampler = bound(config.PowerOfChoice(candidates=6), np.ones(6))
    cohorts = [
        sampler.cohort(some_draw(size, last=lambda asked: losses[asked])).tolist()
        for size in (2, 4, 5)
    ]
    assert sorted(cohorts[0]) == [1, 4]
    assert cohorts[1][2:] == [0, 5]
    assert 2 not in cohorts[2]


@pytest.mark.parametrize("loss", ["last", "current"])
def test_power_of_choice_asks_its_candidates_once_for_the_configured_loss(loss: str) -> None:
    asked: list[int] = []

    def losses(clients: Integers) -> Doubles:
        asked.extend(clients.tolist())
        return by_number(clients)

    sampler = bound(config.PowerOfChoice(candidates=5, loss=loss), np.arange(1, 21))
    candidates = bound(config.BySamples(), np.arange(1, 21)).cohort(some_draw(5))
    cohort = sampler.cohort(some_draw(2, **{loss: losses}))
    assert asked == candidates.tolist()
    assert set(cohort.tolist()) <= set(asked)


def test_power_of_choice_asks_nobody_where_there_is_no_choice() -> None:
    sampler = bound(config.PowerOfChoice(candidates=5, loss="current"), np.ones(20))
    there = np.isin(np.arange(20), (2, 3, 5, 7))
    assert sorted(sampler.cohort(some_draw(4, there=there)).tolist()) == [2, 3, 5, 7]
