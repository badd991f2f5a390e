"""How many actors share a GPU best: the decision in closed form, and a probe that really trains."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import small

from spatl_ray.data.datasets import load_dataset
from spatl_ray.data.federated import federate
from spatl_ray.engine.gpu_probe import (
    GAIN,
    MARGIN,
    STEPS,
    Probe,
    Trial,
    best,
    explored,
    shortened,
    told,
)

GB = 1e9


def saturating(busy: float) -> Any:
    """Actors that each keep a GPU busy for a share of the time: k give min(k, 1 / share) times one's rate."""
    return lambda k: Trial(k, 100 * min(k, 1 / busy), 2 * GB)


@pytest.mark.parametrize(
    ("busy", "memory", "most", "tried", "chosen"),
    [
        (1.0, 80 * GB, 16, [1, 2], 1),  # one fills it
        (0.5, 80 * GB, 16, [1, 2, 4], 2),
        (0.3, 80 * GB, 16, [1, 2, 4, 8], 4),  # 3.3 times one's rate, with 4 and with 8
        (0.01, 80 * GB, 16, [1, 2, 4, 8, 16], 16),  # the most that is allowed
        (0.01, 80 * GB, 6, [1, 2, 4, 6], 6),  # CPUs for six
        (0.01, 12 * GB, 16, [1, 2, 4, 5], 5),  # 0.9 * 12 GB hold five of 2 GB
        (0.01, 1 * GB, 16, [1], 1),  # it runs, so there is one
    ],
)
def test_the_most_that_fit_and_pay(
    busy: float, memory: float, most: int, tried: list[int], chosen: int
) -> None:
    found = explored(saturating(busy), memory, most)
    assert [trial.actors for trial in found] == tried
    assert best(found, memory) == chosen


def test_what_does_not_come_up_is_not_chosen() -> None:
    grows = saturating(0.01)
    found = explored(lambda k: None if k > 2 else grows(k), 80 * GB, 16)
    assert best(found, 80 * GB) == 2


def test_memory_that_grows_with_neighbours_is_seen() -> None:
    """Alone each takes 1 GB, beside others 4 GB: two of those are over the margin."""
    found = explored(lambda k: Trial(k, float(k), (1 if k == 1 else 4) * GB), 8 * GB, 16)
    assert [trial.actors for trial in found] == [1, 2]
    assert best(found, 8 * GB) == 1


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.floats(0, 1e11), st.floats(1, 1e12))
def test_the_choice_is_a_law(rates: list[float], memory: float, whole: float) -> None:
    tried = [Trial(2**i, rate, memory) for i, rate in enumerate(rates)]
    chosen = best(tried, whole)
    assert chosen == 1 or chosen * memory <= (1 - MARGIN) * whole
    taken = [trial.rate for trial in tried if trial.actors <= chosen]
    assert all(b >= (1 + GAIN) * a for a, b in pairwise(taken))
    if chosen < tried[-1].actors:
        (following,) = (trial for trial in tried if trial.actors == 2 * chosen)
        assert not following.fits(whole) or following.rate < (1 + GAIN) * taken[-1]


def test_what_is_told_has_the_measurements() -> None:
    tried = [Trial(1, 100.0, 2 * GB), Trial(2, 190.0, 2.5 * GB), Trial(4, 195.0, 2.5 * GB)]
    assert told(tried, 16 * GB) == (
        "2 actors a GPU; samples a second with so many at once: 1: 100, 2: 190, 4: 195; at most "
        "2.5 of 16 GB each"
    )


@pytest.mark.parametrize("algorithm", ["fedavg", "spatl"])
def test_a_probe_trains_what_the_experiment_trains(tmp_path: Path, algorithm: str) -> None:
    experiment = small(tmp_path, algorithm)
    data = federate(load_dataset(experiment.data, experiment.seed), experiment)
    probe = Probe(experiment, data)
    assert probe.rate(0.0) > 0
    assert probe.whole() == 0.0  # of a CPU
    assert 50e6 < probe.memory(1) == probe.memory(4) < 20e9
    states = probe._states
    assert states.exists()
    probe.close()
    assert not states.exists()
    assert not list(tmp_path.iterdir())


def test_clients_are_shortened_only_if_they_are_long(tmp_path: Path) -> None:
    long = small(tmp_path, training={"epochs": 3, "batch_size": 10})
    assert shortened(long, 30) is long
    assert shortened(long, 40).training.steps == STEPS
    assert shortened(long, 40).training.epochs is None
    steps = small(tmp_path, training={"steps": 500})
    assert shortened(steps, 1).training.steps == STEPS
