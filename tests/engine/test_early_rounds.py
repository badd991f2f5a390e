"""Rounds that begin before the one before is written down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from identity import CrashOnce, assert_identical, everything
from identity import small as small_network
from small_runs import serial, small, table

from spatl_ray import run
from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import load_dataset
from spatl_ray.data.federated import federate
from spatl_ray.engine.backend import Done, Following, RoundPlan, SerialBackend, nothing_follows
from spatl_ray.engine.folders import profile_file, state_folder
from spatl_ray.engine.messages import RoundOutcome
from spatl_ray.errors import PluginError


class Eager(SerialBackend):
    """Asks for the next round as the Ray backend does: as soon as the reports are there."""

    early = 0
    ahead: RoundPlan | None = None

    def train(
        self, plan: RoundPlan, done: Done, following: Following = nothing_follows
    ) -> RoundOutcome:
        if self.ahead is not None:
            assert plan == self.ahead
            self.early += 1
        outcome = super().train(plan, done)
        self.ahead = None if self._full else following(outcome.clients)
        return outcome


def eager(experiment: Experiment) -> Eager:
    data = federate(load_dataset(experiment.data, experiment.seed), experiment)
    return Eager(experiment, data, state_folder(experiment))


CASES: dict[str, tuple[dict[str, Any], int]] = {
    "evaluated each round": ({"evaluation": {"every": 1}}, 0),
    "seldom evaluated": ({"evaluation": {"every": 3}}, 5),
    "asked for losses": (
        {
            "evaluation": {"every": 3},
            "sample_ratio": 0.5,
            "sampler": {"name": "power_of_choice", "candidates": 5, "loss": "current"},
        },
        5,
    ),
    "last losses": (
        {
            "evaluation": {"every": 8},
            "sample_ratio": 0.5,
            "sampler": {"name": "power_of_choice", "candidates": 5, "loss": "last"},
        },
        7,
    ),
    "median": ({"evaluation": {"every": 8}, "aggregation": {"rule": "median"}}, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_beginning_early_changes_nothing(tmp_path: Path, name: str) -> None:
    fields, early = CASES[name]
    plain = small(tmp_path / "plain", "scaffold", rounds=8, **fields)
    run(plain)
    ahead = small(tmp_path / "ahead", "scaffold", rounds=8, **fields)
    backend = eager(ahead)
    run(ahead, backend=backend)
    assert backend.early == early
    assert_identical(everything(ahead), everything(plain))


@pytest.mark.parametrize("make", [serial, eager])
def test_what_goes_wrong_with_the_next_round_costs_no_rows(tmp_path: Path, make: Any) -> None:
    fails = {"name": "small_runs:Fails", "options": {}}
    experiment = small(
        tmp_path, "fedavg", rounds=6, sampler=fails, evaluation={"every": 6}, sample_ratio=0.5
    )
    with pytest.raises(PluginError, match="nobody left"):
        run(experiment, backend=make(experiment))
    assert table(tmp_path, "rounds")["round"].tolist() == [0, 1, 2]
    assert table(tmp_path, "runs")["status"].tolist() == ["failed"]


class Stops(Callback):
    """Ends the run in round 3, as Ctrl-C does."""

    def round_ended(self, row: Mapping[str, object]) -> None:
        if row["round"] == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("make", [serial, eager])
def test_an_interrupted_run_leaves_its_profile(tmp_path: Path, make: Any) -> None:
    engine = {"backend": "serial", "profile": True}
    experiment = small(tmp_path, "fedavg", rounds=6, evaluation={"every": 6}, engine=engine)
    assert run(experiment, backend=make(experiment), callbacks=(Stops(),)).status == "interrupted"
    trace = profile_file(experiment).read_text()
    assert "round 3" in trace
    assert "client 0" in trace


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_begins_early_and_survives_a_crash_then(tmp_path: Path) -> None:
    """Round 1, in which a process dies, began before round 0 was written."""
    fields = {"rounds": 4, "evaluation": {"every": 4, "panel": 5}, "partition": "iid"}
    reference = small_network(
        tmp_path / "serial", {"name": "spatl"}, engine={"backend": "serial"}, **fields
    )
    run(reference)
    marker = tmp_path / "marker"
    marker.touch()
    algorithm = {"name": f"identity:{CrashOnce.__name__}", "options": {"marker": str(marker)}}
    engine = {"workers": 3, "profile": True}
    experiment = small_network(tmp_path / "ray", algorithm, engine=engine, **fields)
    run(experiment)
    assert not marker.exists()
    assert_identical(everything(experiment), everything(reference))
    trace = profile_file(experiment).read_text()
    assert trace.count("train and combine") == 4
    assert "client-actor-2" in trace
