"""`ray up cluster/onprem.yaml` for real: two hosts of our own, over SSH."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from broken_off import without_history
from hosts import Host, hosts, missing
from identity import assert_identical, everything

from spatl_ray import load_experiment, run
from spatl_ray.config import Experiment

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(missing() is not None, reason=f"needs {missing()}"),
]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Up:
    """A cluster that is up.

    Attributes:
        head: its first host.
        workers: the others.
        file: what it was started from.
        environment: of who starts and uses it.
    """

    head: Host
    workers: list[Host]
    file: Path
    environment: dict[str, str]

    @property
    def url(self) -> str:
        """Of its job server."""
        return f"http://{self.head.address}:8265"

    def ray(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Of the laptop's."""
        return _here([str(Path(sys.executable).with_name("ray")), *command], self.environment)

    def spatl(self, *command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Of the laptop's, in a folder there."""
        code = "import sys; from spatl_ray.cli import main; sys.exit(main(sys.argv[1:]))"
        own = {**self.environment, "PYTHONPATH": str(ROOT)}
        return _here([sys.executable, "-c", code, *command], own, folder)


def _here(
    command: list[str], environment: dict[str, str], folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Brought up from cluster/onprem.yaml with the hosts' names in it, and taken down."""
    folder = tmp_path_factory.mktemp("hosts")
    with hosts(2, folder) as made:
        head, *workers = made
        for host in made:
            _have_installed(host)
        setup = ROOT / "dist" / "cluster"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(setup / "auth_token")}
        up = Up(head, workers, folder / "onprem.yaml", {**os.environ, **token})
        up.file.write_text(yaml.safe_dump(_filled_in(head, workers)))
        started = up.ray("up", "-y", "--no-config-cache", str(up.file))
        assert started.returncode == 0, started.stdout + started.stderr
        _await_nodes(up, 2)
        yield up


def _have_installed(host: Host) -> None:
    """What install.sh would do there: these hosts reach no package registry."""
    wheel = next((ROOT / "dist" / "cluster").glob("spatl_ray-*.whl"))
    environment = Path(sys.prefix)
    shutil.copy(wheel, environment / "installed.whl")
    assert host.run(f"ln -s {environment} ~/spatl").returncode == 0


def _filled_in(head: Host, workers: list[Host]) -> dict[str, object]:
    """The file that is shipped, with what a user replaces."""
    text = (ROOT / "cluster" / "onprem.yaml").read_text()
    for capitals, value in {
        "HEAD_HOST": head.address,
        "WORKER_HOST_1, WORKER_HOST_2": ", ".join(worker.address for worker in workers),
        "USER": "root",
        "~/.ssh/id_ed25519": str(head.common / "key"),
        "dist/cluster": str(ROOT / "dist" / "cluster"),
    }.items():
        assert capitals in text
        text = text.replace(capitals, value)
    filled: dict[str, object] = yaml.safe_load(text)
    return filled


def _await_nodes(up: Up, count: int) -> None:
    status = "bash --login -i -c 'ray status'"
    cores = f"/{count * (os.cpu_count() or 1)}.0 CPU"  # a node is listed before it has joined
    _await(lambda: cores in up.head.run(status).stdout, 120)


def demo(up: Up, name: str, *more: str) -> list[str]:
    """The demo on storage that is shared, with as many workers as both hosts hold."""
    results = f"results.folder={up.head.common / name}"
    return ["demo", "engine.workers=4", "results.flush_seconds=0", results, *more]


def assert_same_as_serial(up: Up, arguments: list[str], folder: Path) -> None:
    """What a job left is what this process makes alone."""
    there = load_experiment(arguments[0], arguments[1:])
    own = [f"results.folder={folder}", "engine.backend=serial", "engine.workers=null"]
    here = load_experiment(arguments[0], [*arguments[1:], *own])
    run(here)
    found, expected = (without_history(everything(each)) for each in (there, here))
    assert_identical(found, expected)


def hosts_of(experiment: Experiment) -> list[str]:
    """Of the workers that a run began with."""
    (row,) = pd.read_parquet(Path(experiment.results.folder) / "runs").to_dict("records")
    return sorted({str(each["host"]) for each in json.loads(row["hardware"])})


def test_the_demo_runs_across_both_hosts_to_the_bits_of_one_process(
    cluster: Up, tmp_path: Path
) -> None:
    arguments = demo(cluster, "demo", "rounds=3")
    submitted = cluster.spatl("submit", *arguments, "--address", cluster.url)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "run finished" in submitted.stdout
    names = sorted([cluster.head.name, *(worker.name for worker in cluster.workers)])
    assert hosts_of(load_experiment(arguments[0], arguments[1:])) == names
    assert_same_as_serial(cluster, arguments, tmp_path)


OWN = """
import socket
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        with open("{place}/" + socket.gethostname(), "w"):
            pass
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
        self.predictor = nn.Linear(16, 10)

    def forward(self, x):
        return self.predictor(self.encoder(x))
"""


def test_own_modules_of_the_folder_reach_every_host(cluster: Up, tmp_path: Path) -> None:
    seen = cluster.head.common / "seen"
    seen.mkdir()
    (tmp_path / "own_net.py").write_text(OWN.replace("{place}", str(seen)))
    arguments = demo(cluster, "own", "rounds=1", "algorithm=fedavg", "model={name: own_net:Net}")
    submitted = cluster.spatl("submit", *arguments, "--address", cluster.url, folder=tmp_path)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    names = {cluster.head.name, *(worker.name for worker in cluster.workers)}
    assert {path.name for path in seen.iterdir()} == names


GRID = """
name: across
experiment: demo
fixed: {rounds: 2, engine.backend: ray, engine.workers: 3}
grid:
  algorithm: [fedavg, spatl]
"""


def test_a_sweep_runs_across_both_hosts(cluster: Up, tmp_path: Path) -> None:
    """Its runs need more processors than a host has, and wait for each other."""
    results = cluster.head.common / "swept"
    checkout = tmp_path / "checkout"
    for part in ("spatl_ray", "tune"):
        shutil.copytree(ROOT / part, checkout / part)
    (checkout / "mine.yaml").write_text(GRID)
    command = f"python tune/sweep.py mine.yaml results.folder={results} --address auto"
    sent = ["submit", "--command", command, "--address", cluster.url]
    submitted = cluster.spatl(*sent, folder=checkout)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    runs = pd.read_parquet(results / "runs")
    assert sorted(runs["status"]) == ["finished", "finished"]
    for hardware in runs["hardware"]:
        assert len({each["host"] for each in json.loads(hardware)}) == 2


def test_a_job_that_fails_says_so(cluster: Up) -> None:
    refused = cluster.spatl(
        "submit", *demo(cluster, "refused", "engine.workers=9"), "--address", cluster.url
    )
    assert refused.returncode == 2
    assert "engine.workers" in refused.stdout
    command = ["--command", "python -c 'import sys; print(\"here\"); sys.exit(7)'"]
    failed = cluster.spatl("submit", *command, "--address", cluster.url)
    assert (failed.returncode, "here" in failed.stdout) == (7, True)


def test_a_job_is_followed_and_stopped(cluster: Up) -> None:
    arguments = demo(cluster, "stopped", "rounds=500")
    sent = cluster.spatl("submit", *arguments, "--detach", "--address", cluster.url)
    job = sent.stdout.split()[1]
    _await(lambda: _rounds(cluster, "stopped") > 1)
    stopped = cluster.spatl("job", job, "--stop", "--address", cluster.url)
    assert "is being stopped" in stopped.stdout
    followed = cluster.spatl("job", job, "--address", cluster.url)
    assert "job stopped" in followed.stderr
    (row,) = pd.read_parquet(cluster.head.common / "stopped" / "runs").to_dict("records")
    assert row["status"] == "interrupted"


def test_a_host_that_is_cut_off_costs_no_bit(cluster: Up, tmp_path: Path) -> None:
    arguments = demo(cluster, "cut", "rounds=60")
    sent = cluster.spatl("submit", *arguments, "--detach", "--address", cluster.url)
    job = sent.stdout.split()[1]
    _await(lambda: _rounds(cluster, "cut") > 2)
    cluster.workers[0].cut()
    followed = cluster.spatl("job", job, "--address", cluster.url)
    assert followed.returncode == 0, followed.stdout + followed.stderr
    cluster.workers[0].cut(is_cut=False)
    events = pd.read_parquet(cluster.head.common / "cut" / "events")
    assert {"recovered", "fewer workers"} <= set(events["kind"])
    assert_same_as_serial(cluster, arguments, tmp_path)


def _rounds(up: Up, name: str) -> int:
    """That are written."""
    return len(list((up.head.common / name / "rounds").rglob("*.parquet")))


def _await(is_so: Callable[[], bool], seconds: float = 90.0, told: object = "") -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, told
        time.sleep(0.5)


def test_nothing_runs_after_ray_down(cluster: Up) -> None:
    down = cluster.ray("down", "-y", str(cluster.file))
    assert down.returncode == 0, down.stdout + down.stderr
    left: list[str] = []

    def is_quiet(host: Host) -> bool:
        left[:] = host.processes("ray")
        return not left

    for host in (cluster.head, *cluster.workers):
        _await(lambda host=host: is_quiet(host), 150, left)
