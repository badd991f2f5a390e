"""Runs whose clients are trained several at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from identity import assert_identical, everything
from small_runs import ran, small, table

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import load_dataset
from spatl_ray.data.federated import federate
from spatl_ray.engine.backend import SerialBackend
from spatl_ray.engine.folders import state_folder
from spatl_ray.engine.prepare import prepare
from spatl_ray.errors import ConfigError

ALGORITHMS: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "fedprox": {"name": "fedprox", "mu": 0.1},
    "scaffold": {"name": "scaffold"},
    "spatl": {"name": "spatl", "keep": 0.4},
    "draws of torch": {"name": "sketches:Draws", "options": {}},
}


def together(folder: Path, count: int, algorithm: Mapping[str, Any], **fields: Any) -> Experiment:
    """Three rounds of seven clients of different sizes; batches of `count` clients."""
    training = {"lr": 0.05, "batch_size": 16, "epochs": 2, "together": count}
    fields = {"clients": 7, "partition": {"name": "dirichlet", "beta": 0.5}, **fields}
    return small(folder, algorithm, training=training, **fields)


def everything_of(experiment: Experiment, groups: int) -> dict[str, Any]:
    data = federate(load_dataset(experiment.data, experiment.seed), experiment)
    run(experiment, backend=SerialBackend(experiment, data, state_folder(experiment), groups))
    return everything(experiment)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_groups_of_workers_change_nothing(tmp_path: Path, name: str) -> None:
    """Batches of 3, 3 and 1 clients, on one, two and three workers."""
    found = [
        everything_of(together(tmp_path / str(groups), 3, ALGORITHMS[name]), groups)
        for groups in (1, 2, 3)
    ]
    assert_identical(found[0], found[1])
    assert_identical(found[0], found[2])


@pytest.mark.parametrize("name", [pytest.param("gaussian", marks=pytest.mark.slow), "label_flip"])
def test_hostile_clients_train_together_with_others(tmp_path: Path, name: str) -> None:
    """On one and on three workers to the bit; and as they train alone, up to rounding."""
    attack = {"name": name, "share": 0.4}
    found = {}
    for count, groups in ((3, 1), (3, 3), (1, 1)):
        folder = tmp_path / f"{count} {groups}"
        experiment = together(folder, count, ALGORITHMS["scaffold"], attack=attack)
        found[count, groups] = everything_of(experiment, groups)
    assert_identical(found[3, 1], found[3, 3])
    losses = [found[count, 1]["clients.train_loss"] for count in (3, 1)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_workers_change_nothing(tmp_path: Path) -> None:
    serial = everything_of(together(tmp_path / "serial", 3, ALGORITHMS["spatl"]), 1)
    experiment = together(tmp_path / "ray", 3, ALGORITHMS["spatl"], engine={"workers": 3})
    run(experiment)
    assert_identical(everything(experiment), serial)
    rows = table(tmp_path / "ray", "clients")
    assert rows["actor"].nunique() == 3
    first = rows[rows["round"] == 0].sort_values("client")["actor"].tolist()
    assert len(set(first[:3])) == len(set(first[3:6])) == 1


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_agrees_with_one_client_at_a_time(tmp_path: Path, name: str) -> None:
    fields = {"wire": {"uplink": "float32"}, "rounds": 2}
    found = {}
    for count in (1, 4):
        experiment = together(tmp_path / str(count), count, ALGORITHMS[name], **fields)
        _, backend = ran(experiment)
        found[count] = backend.arrays(), table(tmp_path / str(count), "clients")
    (alone, rows), (batched, batched_rows) = found[1], found[4]
    for part, array in alone.items():
        scale = np.abs(array).max(initial=0)
        assert np.abs(batched[part] - array).max(initial=0) <= 1e-5 * scale, part
    same = ["client", "round", "status", "samples", "steps", "bytes_up", "bytes_down"]
    pd.testing.assert_frame_equal(batched_rows[same], rows[same])
    assert batched_rows["train_loss"].to_numpy() == pytest.approx(rows["train_loss"], rel=1e-5)
    assert (batched_rows["seconds"] > 0).all()


@pytest.mark.parametrize("what", ["raise", "nan"])
def test_who_fails_fails_alone(tmp_path: Path, what: str) -> None:
    """After training: the others of its batch count."""
    options = {"name": "small_runs:SabotagedScaffold", "options": {"3": what}}
    experiment = together(tmp_path, 4, options)
    run(experiment)
    rows = table(tmp_path, "clients")
    bad = rows["client"] == 3
    assert set(rows["status"][bad]) == {"failed" if what == "raise" else "rejected"}
    assert set(rows["status"][~bad]) == {"accepted"}
    assert (rows["actor"] == "serial").all()


def test_who_cannot_begin_fails_alone(tmp_path: Path) -> None:
    """A batch with a client whose tasks cannot be made is trained one by one."""
    options = {"name": "sketches:NoTask", "options": {"client": 2}}
    experiment = together(tmp_path, 4, options)
    run(experiment)
    rows = table(tmp_path, "clients")
    bad = rows["client"] == 2
    assert set(rows["status"][bad]) == {"failed"}
    assert set(table(tmp_path, "events")["message"]) == {"RuntimeError: no task"}
    assert set(rows["status"][~bad]) == {"accepted"}


def test_a_model_that_cannot_be_batched_is_refused_before_the_run(tmp_path: Path) -> None:
    model = {"name": "resnet20", "options": {"width": 2}}
    experiment = together(tmp_path, 4, ALGORITHMS["fedavg"], model=model)
    with pytest.raises(ConfigError, match=r"training.together must be 1 with a model with buffers"):
        prepare(experiment)
    with pytest.raises(ConfigError, match=r"training.together must be at least 1, got 0"):
        together(tmp_path, 0, ALGORITHMS["fedavg"])
