"""Runs on Ray nodes with pretended GPUs: parts of them, unequal nodes, actors chosen by measurement."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from identity import assert_identical, everything, small
from unequal_nodes import PACED, ran

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.engine.capacity import GPU_MEMORY

pytestmark = [pytest.mark.integration, pytest.mark.ray, pytest.mark.slow]

SMALL_GPU = {"num_cpus": 4, "num_gpus": 1, "resources": {GPU_MEMORY: 1e8}}
LARGE_GPUS = {"num_cpus": 4, "num_gpus": 2, "resources": {GPU_MEMORY: 1e12}}


def same_as_serial(folder: Path, experiment: Experiment, **fields: Any) -> None:
    """All but the events, which tell of the measurement."""
    serial = experiment.model_copy(
        update={
            "engine": small(folder, {"name": "fedavg"}, engine={"backend": "serial"}).engine,
            "results": small(folder / "serial", {"name": "fedavg"}).results,
        }
    )
    run(serial)
    found = [everything(each) for each in (experiment, serial)]
    assert_identical(
        *({k: v for k, v in each.items() if not k.startswith("events.")} for each in found)
    )


def nodes_of(experiment: Experiment) -> Counter[str]:
    """How many workers each node had."""
    row = pd.read_parquet(Path(experiment.results.folder) / "runs").iloc[0]
    return Counter(worker["node"] for worker in json.loads(row["hardware"]))


def test_as_many_actors_as_the_config_says_share_each_gpu(tmp_path: Path) -> None:
    engine = {"actors_per_gpu": 2, "num_cpus": 0.5, "device": "cpu"}
    experiment = ran(tmp_path / "ray", {"name": "fedavg"}, [SMALL_GPU, LARGE_GPUS], engine=engine)
    assert sorted(nodes_of(experiment).values()) == [2, 4]
    same_as_serial(tmp_path, experiment)


def test_measured_actors_differ_by_kind_of_gpu(tmp_path: Path) -> None:
    """One where memory holds no more, two where each GPU has two CPUs and clients that mostly wait."""
    engine = {"actors_per_gpu": "auto", "device": "cpu"}
    paced = [{**node, "env_vars": {"PACE": "0.2"}} for node in (SMALL_GPU, LARGE_GPUS)]
    experiment = ran(tmp_path / "ray", PACED, paced, engine=engine)
    assert sorted(nodes_of(experiment).values()) == [1, 4]
    events = pd.read_parquet(tmp_path / "ray" / "events")
    told = events[events["kind"] == "shared GPUs"]["message"]
    assert [text.partition(" actors a GPU;")[0] for text in sorted(told)] == [
        "1e+08 bytes: 1",
        "1e+12 bytes: 2",
    ]
    same_as_serial(tmp_path, experiment)


def test_a_slower_node_gets_less_work(tmp_path: Path) -> None:
    """Clients of one node take eight times as long: of twelve, it gets one or two once that is known."""
    nodes = [{"num_cpus": 1, "env_vars": {"PACE": pace}} for pace in ("0.2", "1.6")]
    experiment = ran(
        tmp_path / "ray",
        PACED,
        nodes,
        rounds=4,
        sample_ratio=1.0,
        model={"name": "mlp"},
        partition={"name": "iid"},
        engine={"workers": 2},
    )
    clients = pd.read_parquet(tmp_path / "ray" / "clients")
    clients = clients[clients["participated"]]
    slow = clients.groupby("actor", observed=True)["seconds"].mean().idxmax()
    shares = clients[clients["actor"] == slow].groupby("round").size()
    assert shares[0] == 6
    assert shares[3] in (1, 2)
    same_as_serial(tmp_path, experiment)
