"""Cohorts, panels, weights and placement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cohort_draws import sample_cohort
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.config import Experiment
from spatl_ray.engine.schedule import (
    CostModel,
    assign,
    cohort_weights,
    objective_weights,
    sample_panel,
)
from spatl_ray.federation.availability import newcomers


def experiment(**fields: Any) -> Experiment:
    return Experiment.model_validate(fields)


@given(st.integers(1, 200), st.floats(0.01, 1), st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_a_cohort_is_distinct_clients_of_the_stated_share(
    clients: int, ratio: float, seed: int, round_: int
) -> None:
    ratio = max(ratio, 1 / clients)
    setting = experiment(clients=clients, sample_ratio=ratio, seed=seed)
    cohort = sample_cohort(setting, round_)
    assert abs(len(cohort) - ratio * clients) <= 0.5
    assert (np.diff(cohort) > 0).all()
    assert 0 <= cohort[0] <= cohort[-1] < clients
    assert np.array_equal(cohort, sample_cohort(setting, round_))


def test_cohorts_differ_by_round_and_by_seed_only() -> None:
    setting = experiment(clients=50, sample_ratio=0.2)
    first = sample_cohort(setting, 0)
    assert not np.array_equal(first, sample_cohort(setting, 1))
    assert not np.array_equal(first, sample_cohort(setting.model_copy(update={"seed": 1}), 0))
    assert np.array_equal(first, sample_cohort(setting.model_copy(update={"rounds": 99}), 0))


def test_everybody_takes_part_with_a_ratio_of_1() -> None:
    assert sample_cohort(experiment(clients=7), 3).tolist() == list(range(7))


def test_sampling_is_uniform() -> None:
    """A client is in a cohort of 4 of 20 with probability 1/5, and a pair with 4/20 * 3/19.

    In n rounds its count has variance n / 5 * 4 / 5. The counts of all clients sum to 4 n, so the sum
    of squared standardised counts, times 19 / 20, has about the chi-square distribution with 19
    degrees of freedom: 43.8 is its 0.999 quantile. The draw is seeded: it does not change.
    """
    n, setting = 2000, experiment(clients=20, sample_ratio=0.2)
    taken = np.zeros((n, 20))
    for round_ in range(n):
        taken[round_, sample_cohort(setting, round_)] = 1
    standardised = (taken.sum(axis=0) - n / 5) / np.sqrt(n / 5 * 4 / 5)
    assert (standardised**2).sum() * 19 / 20 < 43.8
    together = (taken.T @ taken)[~np.eye(20, dtype=bool)] / n
    assert together == pytest.approx(4 / 20 * 3 / 19, abs=5 * np.sqrt(0.0316 / n))


@given(st.integers(1, 300), st.integers(1, 150), st.integers(0, 2**32 - 1))
def test_the_panel_is_distinct_seeded_and_not_larger_than_asked(
    clients: int, size: int, seed: int
) -> None:
    fields = {"clients": clients, "seed": seed, "sample_ratio": 1.0}
    setting = experiment(**fields, evaluation={"panel": size})
    panel = sample_panel(setting)
    assert len(panel) == min(size, clients)
    assert (np.diff(panel) > 0).all()
    assert 0 <= panel[0] <= panel[-1] < clients
    assert np.array_equal(panel, sample_panel(setting))


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=50), st.integers(0, 2**32))
def test_weights_are_the_objectives_and_sum_to_1_over_a_cohort(
    counts: list[int], seed: int
) -> None:
    samples = np.array(counts)
    rng = np.random.default_rng(seed)
    cohort = np.sort(rng.choice(len(counts), rng.integers(1, len(counts) + 1), replace=False))
    for objective in ("samples", "uniform"):
        p = objective_weights(experiment(objective=objective), samples)
        assert p.sum() == pytest.approx(1, abs=1e-12)
        weights = cohort_weights(cohort, p, np.ones(len(cohort)))
        assert [w.population for w in weights] == p[cohort].tolist()
        assert sum(w.cohort for w in weights) == pytest.approx(1, abs=1e-12)
        shares = np.array([w.cohort for w in weights]) * p[cohort].sum()
        assert shares == pytest.approx(p[cohort])


def test_the_objectives_weights_by_hand() -> None:
    samples = np.array([1, 3, 4])
    assert objective_weights(experiment(objective="samples"), samples).tolist() == [
        0.125,
        0.375,
        0.5,
    ]
    assert objective_weights(experiment(objective="uniform"), samples).tolist() == [1 / 3] * 3


def test_newcomers_have_no_weight_in_the_objective() -> None:
    samples = np.arange(1, 11)
    fields: dict[str, Any] = {"availability": {"name": "newcomers", "share": 0.3}}
    new = newcomers(experiment(**fields).availability, 10, seed=0)
    for objective, own in (("samples", samples), ("uniform", np.ones(10))):
        p = objective_weights(experiment(objective=objective, **fields), samples)
        assert (p[new] == 0).all()
        assert p[~new] == pytest.approx(own[~new] / own[~new].sum(), rel=1e-15)


costs_of_items = st.lists(st.floats(0, 1e6) | st.integers(0, 20).map(float), max_size=60)


@given(costs_of_items, st.integers(1, 9))
def test_every_item_is_placed_once(costs: list[float], workers: int) -> None:
    groups = assign(costs, workers)
    assert len(groups) == workers
    assert sorted(index for group in groups for index in group) == list(range(len(costs)))
    assert groups == assign(costs, workers)
    for group in groups:
        placed = [costs[index] for index in group]
        assert placed == sorted(placed, reverse=True)


@given(costs_of_items, st.integers(1, 9))
def test_no_worker_is_over_the_mean_by_more_than_its_last_item(
    costs: list[float], workers: int
) -> None:
    """It was the least loaded one before that item: load <= mean + (1 - 1/m) item."""
    for group in assign(costs, workers):
        load, last = sum(costs[i] for i in group), costs[group[-1]] if group else 0.0
        assert load <= sum(costs) / workers + (1 - 1 / workers) * last + 1e-6


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 3))
def test_longest_first_is_within_4_thirds_of_the_true_optimum(
    items: list[int], workers: int
) -> None:
    """Graham 1969: 4/3 - 1/(3m) of the best of all placements, found by brute force."""
    costs = [float(item) for item in items]
    longest = max(sum(costs[i] for i in group) for group in assign(costs, workers))
    best = {tuple([0.0] * workers)}
    for cost in costs:
        best = {
            tuple(sorted((*loads[:w], loads[w] + cost, *loads[w + 1 :])))
            for loads in best
            for w in range(workers)
        }
    optimum = min(max(loads) for loads in best)
    assert longest <= (4 / 3 - 1 / (3 * workers)) * optimum + 1e-9


@given(costs_of_items, st.integers(1, 9), st.integers(0, 99))
def test_homes_cost_no_balance(costs: list[float], workers: int, seed: int) -> None:
    homes = np.random.default_rng(seed).integers(-1, workers, len(costs)).tolist()
    groups = assign(costs, workers, homes)
    assert sorted(index for group in groups for index in group) == list(range(len(costs)))
    mean = sum(costs) / workers
    for group in groups:
        load, dearest = sum(costs[i] for i in group), max((costs[i] for i in group), default=0)
        assert load <= (mean + (1 - 1 / workers) * dearest) * (1 + 1e-6) + 1e-6


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_who_can_goes_home(workers: int, each: int, seed: int) -> None:
    """Equal costs: as many as fit a worker's share stay where they are."""
    homes = np.random.default_rng(seed).integers(0, workers, workers * each).tolist()
    groups = assign([0.1] * len(homes), workers, homes)
    assert [len(group) for group in groups] == [each] * workers
    for worker, group in enumerate(groups):
        at_home = sum(homes[index] == worker for index in group)
        assert at_home == min(each, homes.count(worker))


def test_who_has_no_home_is_placed_as_ever() -> None:
    costs = [3.0, 1.0, 2.0, 2.0]
    assert assign(costs, 2, [-1] * 4) == assign(costs, 2)


speeds_of_workers = st.lists(st.floats(0.1, 10), min_size=1, max_size=9)


@given(costs_of_items, st.integers(1, 9), st.integers(0, 99))
def test_equal_speeds_change_nothing(costs: list[float], workers: int, seed: int) -> None:
    homes = np.random.default_rng(seed).integers(-1, workers, len(costs)).tolist()
    assert assign(costs, workers, homes, [1.0] * workers) == assign(costs, workers, homes)


@given(costs_of_items, speeds_of_workers, st.integers(0, 99), st.booleans())
def test_no_worker_ends_after_the_mean_by_more_than_a_share_of_an_item(
    costs: list[float], speeds: list[float], seed: int, at_home: bool
) -> None:
    """Its last item c would end nowhere earlier: all loads L + c >= f s, so f <= (sum + (m - 1) c) / S."""
    workers, rng = len(speeds), np.random.default_rng(seed)
    homes = rng.integers(-1, workers, len(costs)).tolist() if at_home else None
    groups = assign(costs, workers, homes, speeds)
    assert sorted(index for group in groups for index in group) == list(range(len(costs)))
    for group, speed in zip(groups, speeds, strict=True):
        placed = [costs[index] for index in group]
        most = (sum(costs) + (workers - 1) * max(placed, default=0.0)) / sum(speeds)
        assert sum(placed) / speed <= most * (1 + 1e-6) + 1e-6


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.sampled_from([(1, 2), (1, 4), (1, 2, 3)]),
)
def test_the_earliest_end_is_within_the_bound_of_uniform_machines(
    items: list[int], speeds: tuple[int, ...]
) -> None:
    """Gonzalez, Ibarra, Sahni 1977: 2 - 2/(m+1) of the best of all placements, found by brute force."""
    costs, m = [float(item) for item in items], len(speeds)
    groups = assign(costs, m, None, [float(speed) for speed in speeds])
    longest = max(sum(costs[i] for i in g) / s for g, s in zip(groups, speeds, strict=True))
    best = {(0.0,) * m}
    for cost in costs:
        best = {(*loads[:w], loads[w] + cost, *loads[w + 1 :]) for loads in best for w in range(m)}
    optimum = min(max(load / s for load, s in zip(loads, speeds, strict=True)) for loads in best)
    assert longest <= (2 - 2 / (m + 1)) * optimum + 1e-9


def test_work_is_in_proportion_to_speed() -> None:
    groups = assign([1.0] * 60, 3, None, [1.0, 2.0, 3.0])
    assert [len(group) for group in groups] == [10, 20, 30]
    homes = [0] * 30 + [1] * 30  # of 30 at home with the slowest one, ten can stay
    groups = assign([1.0] * 60, 3, homes, [1.0, 2.0, 3.0])
    assert [len(group) for group in groups] == [10, 20, 30]
    assert groups[0] == list(range(10))
    assert groups[1] == list(range(30, 50))


def test_equal_costs_go_round() -> None:
    assert assign([1.0] * 5, 2) == [[0, 2, 4], [1, 3]]
    assert assign([], 3) == [[], [], []]


# --- predicted costs ------------------------------------------------------------------------------

EVERYBODY = np.arange(4)


def test_costs_are_samples_until_different_clients_were_measured() -> None:
    costs = CostModel(np.array([10, 10, 30, 50]))
    assert costs.of(EVERYBODY).tolist() == [10, 10, 30, 50]
    costs.learn(np.array([0, 1]), np.array([1.0, 2.0]))
    assert costs.of(EVERYBODY).tolist() == [10, 10, 30, 50]


@given(st.floats(0.01, 10), st.floats(0.001, 1), st.integers(1, 5))
def test_costs_are_fitted_to_what_was_measured(fixed: float, slope: float, rounds: int) -> None:
    samples = np.array([10, 20, 30, 1000])
    costs = CostModel(samples)
    for _ in range(rounds):
        costs.learn(np.array([0, 1, 2]), fixed + slope * samples[:3])
    assert costs.of(EVERYBODY) == pytest.approx(fixed + slope * samples, rel=1e-6)


def test_what_was_measured_long_ago_is_forgotten() -> None:
    samples = np.array([10, 20, 30, 1000])
    costs = CostModel(samples)
    costs.learn(EVERYBODY, 5.0 + samples)
    for _ in range(200):
        costs.learn(EVERYBODY, 1.0 + 0.1 * samples)
    assert costs.of(EVERYBODY) == pytest.approx(1.0 + 0.1 * samples, rel=1e-4)


@pytest.mark.parametrize(
    ("seconds", "expected"), [([3.0, 2.0, 1.0], [1, 1, 1, 1]), ([1.0, 3.0, 5.0], [10, 20, 30, 40])]
)
def test_nothing_costs_less_than_nothing(seconds: list[float], expected: list[float]) -> None:
    """Noise that makes large clients look cheap, or small ones cheaper than free."""
    costs = CostModel(np.array([10, 20, 30, 40]))
    costs.learn(np.arange(3), np.array(seconds))
    assert costs.of(EVERYBODY).tolist() == expected
