"""Client states on the nodes' own disks: no number changes, and a second node has each of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from client_rounds import committed
from identity import assert_identical, everything, holds, small, state_stores

from spatl_ray import run
from spatl_ray.engine.finished import FinishedRun
from spatl_ray.engine.messages import NEVER
from spatl_ray.errors import ConfigError

pytestmark = pytest.mark.integration

ALGORITHMS: dict[str, dict[str, Any]] = {
    "scaffold": {"name": "scaffold"},
    "agent": {"name": "spatl", "agent": {"episodes": 3, "participations": 1}},
}

SAMPLER = {"name": "power_of_choice", "candidates": 8, "loss": "current"}


@pytest.fixture
def four_nodes(ray_cluster: Any) -> Iterator[None]:
    """Two more nodes of two CPUs each."""
    added = [ray_cluster.add_node(num_cpus=2) for _ in range(2)]
    yield
    for node in added:
        ray_cluster.remove_node(node)


def compare(folder: Path, algorithm: dict[str, Any], workers: int, **fields: Any) -> set[int]:
    """A mirrored run beside the serial one; returns the numbers of nodes that hold a client's state."""
    fields = {"rounds": 4, **fields}
    serial = small(folder / "serial", algorithm, engine={"backend": "serial"}, **fields)
    engine = {"workers": workers, "state_mirror": True, "state_folder": str(folder / "disks")}
    mirrored = small(folder / "mirrored", algorithm, engine=engine, **fields)
    for experiment in (serial, mirrored):
        run(experiment)
    assert_identical(everything(mirrored), everything(serial))
    stores = state_stores(mirrored)
    hardware = json.loads(pd.read_parquet(folder / "mirrored" / "runs")["hardware"].iloc[0])
    assert stores.keys() == {worker["node"] for worker in hardware}
    counts = set()
    for client, last in committed(mirrored).items():
        if last != NEVER:
            copies = [s.record(client, last) for s in stores.values() if holds(s, client, last)]
            assert len(set(copies)) == 1
            counts.add(len(copies))
    return counts


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("name", "rule"),
    [("agent", "mean"), ("scaffold", "median")],
)
@pytest.mark.slow
def test_both_nodes_hold_every_state(tmp_path: Path, name: str, rule: str) -> None:
    """Whether workers commit, or wait for the aggregator's verdict."""
    assert compare(tmp_path, ALGORITHMS[name], 3, aggregation={"rule": rule}) == {2}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("four_nodes")
def test_states_follow_clients_over_four_nodes(tmp_path: Path) -> None:
    """Who is trained on a third node takes its state along; what the panel needs is brought there."""
    fields = {
        "training": {"together": 2},
        "sampler": SAMPLER,
    }
    model = {"model": {"name": "mlp"}}
    counts = compare(tmp_path, ALGORITHMS["scaffold"], 8, **fields, **model)
    assert min(counts) == 2
    assert max(counts) > 2


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_a_run_over_another_one_starts_without_its_states(tmp_path: Path) -> None:
    engine = {"workers": 4, "state_mirror": True, "state_folder": str(tmp_path / "disks")}
    found = []
    for overwrite in (False, True):
        results = {"folder": str(tmp_path / "results"), "overwrite": overwrite}
        experiment = small(tmp_path, ALGORITHMS["scaffold"], engine=engine, results=results)
        run(experiment)
        found.append(everything(experiment))
    assert_identical(*found)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_one_node_has_no_mirror(tmp_path: Path) -> None:
    engine = {"workers": 1, "state_mirror": True}
    experiment = small(tmp_path, ALGORITHMS["scaffold"], engine=engine)
    with pytest.raises(ConfigError, match=r"engine.state_mirror must be false.* on one node"):
        run(experiment)
    assert not list(tmp_path.rglob("*.parquet"))
    with pytest.raises(ConfigError, match=r"state_mirror must be false with backend serial"):
        small(tmp_path, {"name": "fedavg"}, engine={"backend": "serial", "state_mirror": True})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_an_export_says_where_the_states_are(tmp_path: Path) -> None:
    experiment = small(
        tmp_path, ALGORITHMS["scaffold"], engine={"workers": 3, "state_mirror": True}
    )
    run(experiment)
    with pytest.raises(ConfigError, match=r"engine.state_mirror must be false.* taken up again"):
        FinishedRun(tmp_path, experiment.run_id)
