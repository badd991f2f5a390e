"""Where client states lie, and who must see them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from identity import small as small_network
from mounts import can_mount
from small_runs import ran, serial, small

from spatl_ray import run
from spatl_ray.engine.folders import state_folder
from spatl_ray.errors import ConfigError
from spatl_ray.state.store import StateStore


def test_states_lie_where_the_config_says(tmp_path: Path) -> None:
    places = {"state_folder": str(tmp_path / "fast"), "backend": "serial"}
    experiment = small(tmp_path / "results", "scaffold", engine=places)
    _, backend = ran(experiment)
    assert state_folder(experiment).parent == tmp_path / "fast"
    assert list((tmp_path / "fast").rglob("shard-*.bin"))
    assert not (tmp_path / "results" / "states").exists()
    assert backend.worker.store.read(0, 2)["control"].any()


def test_runs_of_other_results_leave_each_other_alone(tmp_path: Path) -> None:
    """The same run, so the same id, in two results folders with one folder for states."""
    places = {"state_folder": str(tmp_path / "fast"), "backend": "serial"}
    _, backend = ran(small(tmp_path / "one", "scaffold", engine=places))
    before = backend.worker.store.read(0, 2)["control"]
    run(small(tmp_path / "two", "scaffold", engine=places, rounds=1, name="other"))
    _, second = ran(small(tmp_path / "two", "scaffold", engine=places))
    fresh = StateStore(state_folder(backend.worker.experiment), backend.worker.store.initial)
    assert fresh.read(0, 2)["control"].tobytes() == before.tobytes()
    assert backend.worker.store.folder != second.worker.store.folder


def test_the_folder_is_no_part_of_the_run(tmp_path: Path) -> None:
    there = small(tmp_path, "scaffold")
    elsewhere = small(tmp_path, "scaffold", engine={"state_folder": "/elsewhere"})
    assert there.run_id == elsewhere.run_id
    with pytest.raises(ConfigError, match=r"engine.state_folder.* at least 1 character, got ''"):
        small(tmp_path, "scaffold", engine={"state_folder": ""})


def test_only_algorithms_with_states_need_the_folder(tmp_path: Path) -> None:
    for name, needs in (("fedavg", False), ("scaffold", True)):
        (facts,) = serial(small(tmp_path, name)).start()
        assert facts.has_states == needs


@pytest.fixture
def blind_node(ray_cluster: None, tmp_path: Path) -> Iterator[Path]:
    """A third node, which sees another folder at the path that it gives."""
    import ray

    shared = tmp_path / "not shared"
    shared.mkdir()
    ray_program = Path(sys.executable).with_name("ray")
    address = ray.get_runtime_context().gcs_address
    start = f'mount -t tmpfs none "{shared}" && exec "{ray_program}" start --block'
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{start} --address={address} --num-cpus=2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    before = time.monotonic()
    while ray.cluster_resources().get("CPU", 0) < 6:
        assert process.poll() is None
        assert time.monotonic() - before < 60
        time.sleep(0.2)
    yield shared
    process.terminate()
    process.wait(30)
    while ray.cluster_resources().get("CPU", 0) > 4:
        time.sleep(0.2)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="a folder cannot be hidden from a process here")
def test_a_node_that_does_not_see_the_states_is_refused(tmp_path: Path, blind_node: Path) -> None:
    engine = {"workers": 6, "state_folder": str(blind_node)}
    experiment = small_network(tmp_path / "results", {"name": "scaffold"}, engine=engine)
    with pytest.raises(ConfigError, match=r"engine.state_folder must be .* all nodes share.* got"):
        run(experiment)
    assert not list(blind_node.iterdir())
