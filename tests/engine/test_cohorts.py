"""Samplers in whole runs: who is drawn, what it costs, how it is weighed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_runs import ran, same_bits, saved, serial, small, table

from spatl_ray import run
from spatl_ray.engine.backend import EvaluationPlan
from spatl_ray.engine.cohort import Cohorts
from spatl_ray.engine.messages import PanelMember
from spatl_ray.engine.schedule import cohort_weights
from spatl_ray.errors import ConfigError, SpatlError

pytestmark = pytest.mark.integration

CURRENT = {"name": "power_of_choice", "candidates": 4, "loss": "current"}
LAST = {"name": "power_of_choice", "candidates": 4, "loss": "last"}


def participants(folder: Path) -> list[set[int]]:
    """Who took part, round by round."""
    clients = table(folder, "clients")
    taken = clients[clients["participated"]].groupby("round")["client"]
    return [set(members) for _, members in taken]


def test_weights_undo_the_chance_to_be_drawn() -> None:
    """Drawn in proportion to p_i, everybody weighs the same; p_i itself stays."""
    objective = np.array([0.1, 0.2, 0.3, 0.4])
    weights = cohort_weights(np.array([0, 3]), objective, objective[[0, 3]] * 7)
    assert [w.cohort for w in weights] == [0.5, 0.5]
    assert [w.population for w in weights] == [0.1, 0.4]


def test_weights_of_a_uniform_draw_follow_the_objective() -> None:
    objective = np.array([0.1, 0.2, 0.3, 0.4])
    weights = cohort_weights(np.array([1, 2]), objective, np.ones(2))
    np.testing.assert_allclose([w.cohort for w in weights], [0.4, 0.6])


def test_round_robin_asks_everybody_in_turn(tmp_path: Path) -> None:
    run(small(tmp_path, sample_ratio=1 / 3, sampler="round_robin", rounds=6))
    rounds = participants(tmp_path)
    assert set.union(*rounds[:3]) == set(range(6))
    assert rounds[:3] == rounds[3:]


def test_power_of_choice_by_last_loss_asks_the_unknown_first(tmp_path: Path) -> None:
    """With all clients as candidates, who never took part comes first, then the highest loss."""
    sampler = {**LAST, "candidates": 6}
    run(small(tmp_path, sample_ratio=0.5, sampler=sampler, rounds=3))
    rounds = participants(tmp_path)
    assert rounds[0] | rounds[1] == set(range(6))
    clients = table(tmp_path, "clients")
    losses = clients[clients["round"] < 2].dropna(subset="train_loss").set_index("client")
    assert rounds[2] == set(losses["train_loss"].nlargest(3).index)


def test_power_of_choice_by_current_loss_takes_the_highest(tmp_path: Path) -> None:
    """All six are candidates: the losses of the model before the round decide."""
    sampler = {**CURRENT, "candidates": 6}
    experiment = small(
        tmp_path,
        sample_ratio=0.5,
        sampler=sampler,
        rounds=1,
        partition={"name": "dirichlet", "beta": 0.3},
    )
    backend = serial(experiment)
    backend.start()
    members = tuple(PanelMember(i) for i in range(6))
    losses = backend.losses(EvaluationPlan(0, 0.05, members, (1.0,) * 6)).values
    run(experiment)
    assert participants(tmp_path)[0] == set(sorted(losses, key=losses.__getitem__)[-3:])


def test_asking_for_losses_costs_a_broadcast(tmp_path: Path) -> None:
    devices = {"compute": 1e8, "uplink": 1e5, "downlink": 1e5}
    run(small(tmp_path, sample_ratio=0.5, sampler=CURRENT, devices=devices, rounds=2))
    clients, rounds = table(tmp_path, "clients"), table(tmp_path, "rounds")
    received = clients[clients["bytes_down"] > 0]
    assert (received.groupby("round").size() == 4).all()
    unused = received[~received["participated"]]
    assert len(unused) == 2
    assert unused["status"].isna().all()
    np.testing.assert_array_equal(
        rounds["bytes_down"], clients.groupby("round")["bytes_down"].sum()
    )
    drawn = clients[clients["participated"]]
    # They have the broadcast already: its time is the probe's.
    assert (drawn["simulated_seconds_downlink"] == 0).all()
    slowest = drawn.groupby("round")["simulated_seconds"].max()
    assert (rounds["simulated_seconds"].to_numpy() > slowest.to_numpy()).all()


@pytest.mark.parametrize("sampler", [CURRENT, LAST, "samples", "round_robin"])
def test_samplers_do_not_depend_on_groups(tmp_path: Path, sampler: Any) -> None:
    one = small(tmp_path / "a", "scaffold", sample_ratio=0.5, sampler=sampler)
    many = small(tmp_path / "b", "scaffold", sample_ratio=0.5, sampler=sampler)
    run(one)
    backend = serial(many)
    backend._groups = 3
    run(many, backend=backend)
    assert same_bits(saved(one), saved(many))
    pd.testing.assert_frame_equal(
        table(tmp_path / "a", "clients")[["round", "client", "train_loss", "bytes_down"]],
        table(tmp_path / "b", "clients")[["round", "client", "train_loss", "bytes_down"]],
    )


def test_an_own_sampler_that_repeats_a_client_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(SpatlError, match=r"sampler.*distinct"):
        ran(small(tmp_path, sample_ratio=0.5, sampler={"name": "small_runs:Repeats"}))


def test_clients_that_fail_are_not_drawn_for_ever(tmp_path: Path) -> None:
    """Nothing is known of their loss: infinite before the first turn, and the lowest after it."""
    sampler = {**LAST, "candidates": 6}
    algorithm = {"name": "small_runs:SabotagedScaffold", "options": {"0": "raise", "1": "raise"}}
    run(small(tmp_path, algorithm, sample_ratio=0.5, sampler=sampler, rounds=6))
    turns = pd.Series([c for members in participants(tmp_path) for c in members]).value_counts()
    assert turns[[0, 1]].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        (np.array([10**7]), r"clients in \[0, 6\), got 10000000"),
        (np.array([-4]), r"clients in \[0, 6\), got -4"),
        (np.array([0.5]), "integers, got float64"),
    ],
)
def test_a_sampler_may_ask_about_clients_only(tmp_path: Path, asked: Any, rule: str) -> None:
    experiment = small(tmp_path, sampler={"name": "small_runs:Asks"})
    samples = np.ones(6, np.int64)
    for question in ("available", "turns", "last_losses", "current_losses"):
        cohorts = Cohorts(experiment, samples, None, 0.0, serial(experiment))
        cohorts._sampler.inner.asks = (question, asked)  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match=rule):
            cohorts.draw(0, 0.05, ())


def test_asking_for_no_losses_is_nothing(tmp_path: Path) -> None:
    experiment = small(tmp_path, sampler={"name": "small_runs:Asks"})
    cohorts = Cohorts(experiment, np.ones(6, np.int64), None, 0.0, serial(experiment))
    cohorts._sampler.inner.asks = ("current_losses", [])  # type: ignore[attr-defined]
    assert len(cohorts.draw(0, 0.05, ()).plan.members) == 1
