"""Nodes that are lost: the run goes on, or is taken up on another cluster, to the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from broken_off import ROUNDS, Watch, broken_off, experiment_of, without_history
from client_rounds import committed
from identity import assert_identical, everything, holds, state_stores
from lost_nodes import SECONDS, told

from spatl_ray import resume, run
from spatl_ray.config import Experiment
from spatl_ray.engine.folders import node_folders, state_folder
from spatl_ray.engine.messages import NEVER
from spatl_ray.engine.mirror import Mirror
from spatl_ray.errors import StateError

pytestmark = pytest.mark.integration

MLP: dict[str, Any] = {"model": {"name": "mlp"}}
MIRRORED = {"backend": "ray", "workers": 4, "state_mirror": True}


def same_as_serial(folder: Path, experiment: Experiment, name: str, **fields: Any) -> None:
    plain = experiment_of(folder / "serial", name, **fields)
    run(plain)
    found, expected = (without_history(everything(each)) for each in (experiment, plain))
    assert_identical(found, expected)


def copies(experiment: Experiment, only: set[str] | None = None) -> set[int]:
    """The numbers of folders that hold a client's last state, among those of these names."""
    stores = [s for name, s in state_stores(experiment).items() if only is None or name in only]
    found = set()
    for client, last in committed(experiment).items():
        if last != NEVER:
            records = [s.record(client, last) for s in stores if holds(s, client, last)]
            assert len(set(records)) == 1
            found.add(len(records))
    return found


def test_a_node_takes_over_a_folder_on_its_disk() -> None:
    """Its own, else one whose node is gone; two nodes never the same one."""
    assert node_folders({"a": [], "b": []}) == {"a": "a", "b": "b"}
    assert node_folders({"a": ["a", "b"], "b": ["a", "b"]}) == {"a": "a", "b": "b"}
    assert node_folders({"c": ["a"], "d": ["b"]}) == {"c": "a", "d": "b"}
    assert node_folders({"c": ["a", "b"], "d": ["a", "b"], "e": ["a", "b"]}) == {
        "c": "a",
        "d": "b",
        "e": "e",
    }
    assert node_folders({"b": ["a", "b", "c"], "d": ["a", "b", "c"]}) == {"b": "b", "d": "a"}


def test_a_state_that_no_node_has_is_named() -> None:
    mirror = Mirror([object(), object()], ["a", "b"], [], clients=3)
    last = np.array([-1, 4, 7])
    assert list(mirror.find([{0}, {0, 1, 2}], np.array([-1, -1, -1]))) == []
    with pytest.raises(StateError, match=r"state of client 1 after round 4 is lost: none of the 2"):
        mirror.find([{0, 1}, {1}], last)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_mirrored_run_goes_on_without_one_disk(tmp_path: Path) -> None:
    """What was on it is copied again."""
    engine = {**MIRRORED, "workers": 3}
    experiment = experiment_of(tmp_path, "scaffold", engine=engine, **MLP)
    broken_off(experiment, after=4)
    one, _ = state_folder(experiment).iterdir()
    shutil.rmtree(one)
    watch = Watch()
    resume(tmp_path, experiment.run_id, callbacks=[watch])
    assert watch.rounds == [4, 5]
    assert copies(experiment) == {2}
    same_as_serial(tmp_path, experiment, "scaffold", **MLP)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_another_cluster_takes_a_mirrored_run_up(tmp_path: Path) -> None:
    """Power is gone everywhere, then one of three disks; the nodes have new names afterwards."""
    fields = {"engine": {**MIRRORED, "workers": 3}, **MLP}
    told(tmp_path, "scaffold", fields, [1, 1, 1], {3: "all"})
    experiment = experiment_of(tmp_path, "scaffold", **fields)
    folders = sorted(path.name for path in state_folder(experiment).iterdir())
    assert len(folders) == 3
    shutil.rmtree(state_folder(experiment) / folders[0])
    found = told(tmp_path, "scaffold", fields, [1, 1])
    assert found["rounds"] == [3, 4, 5]
    assert [event["kind"] for event in found["events"]] == ["resumed", "fewer workers"]
    assert copies(experiment, set(folders)) == {2}
    same_as_serial(tmp_path, experiment, "scaffold", **MLP)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "nodes", "events"),
    [
        ("agent", [1, 1, 1], ["recovered", "fewer workers"]),
        ("scaffold", [1, 2], ["recovered", "fewer workers", "no mirror"]),
        ("scaffold", [1, 1, 2], ["recovered"]),
    ],
)
def test_a_mirrored_run_goes_on_without_a_node(
    tmp_path: Path, name: str, nodes: list[int], events: list[str]
) -> None:
    fields: dict[str, Any] = {"engine": {**MIRRORED, "workers": 3}}
    fields |= MLP if name == "scaffold" else {}
    found = told(tmp_path, name, fields, nodes, {3: "node"})
    assert sorted(set(found["rounds"])) == list(range(ROUNDS))
    assert list(dict.fromkeys(event["kind"] for event in found["events"])) == events
    experiment = experiment_of(tmp_path, name, **fields)
    assert min(copies(experiment)) == (1 if "no mirror" in events else 2)
    plain = {key: value for key, value in fields.items() if key != "engine"}
    same_as_serial(tmp_path, experiment, name, **plain)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("spare", [0, 1])
def test_a_run_with_a_shared_folder_goes_on_without_a_node(tmp_path: Path, spare: int) -> None:
    """With fewer workers where the other node has no CPU left for the one that is lost."""
    fields = {"engine": {"backend": "ray", "workers": 2}, **MLP}
    found = told(tmp_path, "scaffold", fields, [1, 1] + [1] * spare, {3: "node"})
    assert sorted(set(found["rounds"])) == list(range(ROUNDS))
    assert ("fewer workers" in {event["kind"] for event in found["events"]}) == (not spare)
    same_as_serial(tmp_path, experiment_of(tmp_path, "scaffold", **fields), "scaffold", **MLP)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize(("what", "mirrored"), [("store", False), ("head", True)])
def test_a_driver_without_its_node_ends_and_another_cluster_goes_on(
    tmp_path: Path, what: str, mirrored: bool
) -> None:
    """Ray ends the driver's process; nothing of what the node's object store held is needed."""
    fields = {"engine": {"backend": "ray", "workers": 2, "state_mirror": mirrored}, **MLP}
    told(tmp_path, "scaffold", fields, [1, 1], {3: what})
    found = told(tmp_path, "scaffold", fields, [1, 1])
    assert found["rounds"] == [3, 4, 5]
    assert [event["kind"] for event in found["events"]] == ["resumed"]
    same_as_serial(tmp_path, experiment_of(tmp_path, "scaffold", **fields), "scaffold", **MLP)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="has one kind of arithmetic only"
)
def test_a_node_of_another_kind_does_not_stand_in(tmp_path: Path) -> None:
    """Its processes do other arithmetic: the run ends, and goes on where it began."""
    fields = {"engine": {"backend": "ray", "workers": 2}, **MLP}
    error = told(tmp_path, "scaffold", fields, [1, 1], {3: "kind"})["error"]
    assert "workers must have the CPU capability (or GPU) and the software set that" in error
    assert "DEFAULT, cpu" in error
    # Round 3 may end while the other node comes up.
    assert told(tmp_path, "scaffold", fields, [1, 1])["rounds"] in ([3, 4, 5], [4, 5])
    same_as_serial(tmp_path, experiment_of(tmp_path, "scaffold", **fields), "scaffold", **MLP)
