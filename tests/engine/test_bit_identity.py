"""The serial backend is the definition: workers, nodes, order, groups and retries change no bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from identity import assert_identical, everything, small

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import load_dataset
from spatl_ray.data.federated import FederatedData, federate
from spatl_ray.engine.backend import (
    Done,
    Following,
    RoundPlan,
    SerialBackend,
    nothing_follows,
)
from spatl_ray.engine.folders import state_folder
from spatl_ray.engine.messages import GroupTask, RoundOutcome
from spatl_ray.engine.ray_backend import RayBackend

pytestmark = pytest.mark.integration

ALGORITHMS: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "scaffold": {"name": "scaffold"},
    "spatl": {"name": "spatl", "keep": 0.4, "inference": {"keep": 0.6}},
    "agent": {"name": "spatl", "agent": {"episodes": 3, "participations": 1}},
}


class Scrambled(SerialBackend):
    """Places and orders the clients of a round at random, in several groups."""

    def train(
        self, plan: RoundPlan, done: Done, following: Following = nothing_follows
    ) -> RoundOutcome:
        generator = np.random.default_rng(plan.round)
        order = generator.permutation(len(plan.members))
        members = tuple(plan.members[i] for i in order)
        costs = tuple(generator.random(len(members)).tolist())
        return super().train(replace(plan, members=members, costs=costs), done, following)


def prepared(experiment: Experiment) -> FederatedData:
    return federate(load_dataset(experiment.data, experiment.seed), experiment)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Everything of the serial runs, by algorithm."""
    found = {}
    for name, algorithm in ALGORITHMS.items():
        folder = tmp_path_factory.mktemp(name)
        experiment = small(folder, algorithm, engine={"backend": "serial"})
        run(experiment)
        found[name] = everything(experiment)
    return found


def test_the_reference_is_not_trivial(reference: dict[str, dict[str, Any]]) -> None:
    """Models moved, control variates are there, some panel clients never trained."""
    spatl = reference["spatl"]
    assert any(name.startswith("control/") and array.any() for name, array in spatl.items())
    assert "client 0: local" in spatl
    assert {"trained", "transfer"} <= set(spatl["clients.evaluated_as"])
    first = reference["fedavg"]["model/encoder.0.weight"]
    assert not np.array_equal(first, reference["scaffold"]["model/encoder.0.weight"])


def test_the_reference_tunes_agents(reference: dict[str, dict[str, Any]]) -> None:
    """Heads of clients differ, rewards were measured, and layers have ratios of their own."""
    agent = reference["agent"]
    heads = [array for name, array in agent.items() if name.endswith(": agent_head")]
    assert len({head.tobytes() for head in heads}) > 5
    assert np.nanmax(agent["clients.selection_reward"]) > 0
    assert len(set(agent["layers.inference_keep_ratio"])) > 3


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("groups", [2, 5])
def test_groups_and_order_change_nothing(
    tmp_path: Path, reference: dict[str, dict[str, Any]], name: str, groups: int
) -> None:
    experiment = small(tmp_path, ALGORITHMS[name], engine={"backend": "serial"})
    data = prepared(experiment)
    backend = Scrambled(experiment, data, state_folder(experiment), groups)
    run(experiment, backend=backend)
    assert_identical(everything(experiment), reference[name])


def test_groups_change_nothing_in_lower_precision(
    tmp_path: Path, reference: dict[str, dict[str, Any]]
) -> None:
    """Of training and states: other bits than the reference's, but as independent of placement."""
    training = {"batch_size": 32, "lr": 0.05, "precision": "bf16", "channels_last": True}
    found = []
    for groups in (1, 3):
        folder, engine = tmp_path / str(groups), {"backend": "serial"}
        experiment = small(
            folder,
            ALGORITHMS["spatl"],
            engine=engine,
            training=training,
            wire={"states": "bfloat16"},
        )
        data = prepared(experiment)
        run(experiment, backend=Scrambled(experiment, data, state_folder(experiment), groups))
        found.append(everything(experiment))
    assert_identical(*found)
    weight = "model/encoder.0.weight"
    assert not np.array_equal(found[0][weight], reference["spatl"][weight])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("name", "workers"),
    [
        *product(ALGORITHMS, (3,)),
        pytest.param("agent", 2, marks=pytest.mark.slow),
    ],
)
def test_ray_workers_and_nodes_change_nothing(
    tmp_path: Path, reference: dict[str, dict[str, Any]], name: str, workers: int
) -> None:
    """Two nodes of two CPUs each: three workers must lie on both."""
    experiment = small(tmp_path, ALGORITHMS[name], engine={"workers": workers})
    run(experiment)
    assert_identical(everything(experiment), reference[name])
    rows = pd.read_parquet(tmp_path / "clients")
    assert rows["actor"].nunique() == workers
    hardware = json.loads(pd.read_parquet(tmp_path / "runs")["hardware"].iloc[0])
    nodes = {worker["node"] for worker in hardware}
    if workers == 3:
        assert len(nodes) == 2


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("name", ["agent"])
def test_the_order_in_which_clients_end_changes_nothing(
    tmp_path: Path, reference: dict[str, dict[str, Any]], name: str
) -> None:
    options = {k: v for k, v in ALGORITHMS[name].items() if k != "name"}
    algorithm = {"name": f"identity:Sleepy{name.capitalize()}", "options": options}
    experiment = small(tmp_path, algorithm, engine={"workers": 3})
    run(experiment)
    assert_identical(everything(experiment), reference[name])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_actor_is_restarted_and_its_round_repeated(
    tmp_path: Path, reference: dict[str, dict[str, Any]]
) -> None:
    """A process that dies in the middle of a round, after it wrote some clients' states."""
    marker = tmp_path / "marker"
    marker.touch()
    options = {k: v for k, v in ALGORITHMS["spatl"].items() if k != "name"}
    algorithm = {"name": "identity:CrashOnce", "options": {**options, "marker": str(marker)}}
    experiment = small(tmp_path / "results", algorithm, engine={"workers": 4})
    run(experiment)
    assert not marker.exists()
    assert_identical(everything(experiment), reference["spatl"])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_clients_stay_where_their_state_is(tmp_path: Path) -> None:
    """All take part in every round; a client that moves costs a file that is read."""
    fields = {"sample_ratio": 1.0, "rounds": 4, "partition": "iid", "clients": 8}
    experiment = small(tmp_path, ALGORITHMS["scaffold"], engine={"workers": 2}, **fields)
    run(experiment)
    rows = pd.read_parquet(tmp_path / "clients")
    assert len(rows) == 4 * 8
    assert rows["actor"].nunique() == 2
    assert (rows.groupby("client")["actor"].nunique() == 1).all()


class Crossing(RayBackend):
    """Notes how many sums a round has, and how many of them reach the aggregator."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sums: list[tuple[int, int]] = []

    def _by_node(self, tasks: Sequence[GroupTask], groups: Sequence[Any]) -> list[Any]:
        sent = super()._by_node(tasks, groups)
        self.sums.append((len(groups), len(sent)))
        return sent


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("name", ["spatl"])
def test_sums_of_a_node_cross_the_network_as_one(
    tmp_path: Path, reference: dict[str, dict[str, Any]], name: str
) -> None:
    experiment = small(tmp_path, ALGORITHMS[name], engine={"workers": 4})
    backend = Crossing(experiment, prepared(experiment), state_folder(experiment))
    run(experiment, backend=backend)
    assert backend.sums == [(4, 2)] * experiment.rounds
    assert_identical(everything(experiment), reference[name])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_rules_that_need_every_update_agree_too(tmp_path: Path) -> None:
    """Payload references reach the aggregator; verdicts come back; states are committed."""
    rule = {"rule": "median", "clip_norm": 0.5}
    found = []
    for name, engine in (("serial", {"backend": "serial"}), ("ray", {"workers": 3})):
        experiment = small(tmp_path / name, ALGORITHMS["spatl"], engine=engine, aggregation=rule)
        run(experiment)
        found.append(everything(experiment))
    assert_identical(*found)
    assert set(found[0]["clients.status"]) >= {"clipped"}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_actors_share_gpus(tmp_path: Path, reference: dict[str, dict[str, Any]]) -> None:
    """Each node pretends one GPU, which holds four quarters: the fifth actor lies on the other."""
    engine = {"workers": 5, "num_cpus": 0.1, "actors_per_gpu": 4, "device": "cpu"}
    experiment = small(tmp_path, ALGORITHMS["fedavg"], engine=engine)
    run(experiment)
    assert_identical(everything(experiment), reference["fedavg"])
    hardware = json.loads(pd.read_parquet(tmp_path / "runs")["hardware"].iloc[0])
    assert len({worker["node"] for worker in hardware}) == 2


HETEROGENEOUS: dict[str, dict[str, Any]] = {
    "over-sampled": {
        "devices": {"budget_bytes_up": 12_000.0},
        "stragglers": {"oversample": 1.4},
        "availability": {"name": "random", "p": 0.9},
    },
    "deadline and losses": {
        "devices": {"compute": {"name": "lognormal", "median": 5e7, "sigma": 2.0}},
        "stragglers": {"deadline": 4.0},
        "sampler": {"name": "power_of_choice", "candidates": 8, "loss": "current"},
        "training": {"lr": 0.05, "augment": {"crop": 1, "flip": True, "cutout": 2}},
    },
}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    "name", ["over-sampled", pytest.param("deadline and losses", marks=pytest.mark.slow)]
)
def test_devices_and_samplers_agree_too(tmp_path: Path, name: str) -> None:
    found = []
    for backend, engine in (("serial", {"backend": "serial"}), ("ray", {"workers": 3})):
        experiment = small(
            tmp_path / backend, ALGORITHMS["spatl"], engine=engine, **HETEROGENEOUS[name]
        )
        run(experiment)
        found.append(everything(experiment))
    assert_identical(*found)
    assert set(found[0]["clients.status"]) >= {"accepted", "late"}
    assert np.isfinite(found[0]["rounds.simulated_seconds"]).all()
