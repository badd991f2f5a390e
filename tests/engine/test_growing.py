"""A cluster that grows for a run or a sweep, and shrinks after it; Ray's autoscaler, on this machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from broken_off import without_history
from growing import Growing, growing
from identity import assert_identical, everything

from spatl_ray import load_experiment, run

pytestmark = [pytest.mark.integration, pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SPATL = "import sys; from spatl_ray.cli import main; sys.exit(main(sys.argv[1:]))"
TINY = ["algorithm=fedavg", "model=mlp", "clients=4", "rounds=2", "data.samples=200"]
GRID = """
name: small
experiment: demo
fixed: {algorithm: fedavg, model: mlp, clients: 4, rounds: 2, data.samples: 200}
grid: {seed: [0, 1]}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Growing]:
    """No CPU at first, and at most two nodes of one."""
    with growing(tmp_path_factory.mktemp("growing"), {"CPU": 1}, most=2) as found:
        yield found


def lost_after(said: str, cluster: Growing, folder: Path, *command: str) -> str:
    """The same, while which a node is lost once the command has said something; all that it said."""
    environment = {**cluster.environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        told, is_lost = "", False
        for line in process.stdout:
            told += line
            if said in line and not is_lost:
                cluster.lose_a_node()
                is_lost = True
        assert process.wait() == 0, told
    assert is_lost, told
    return told


def given(cluster: Growing, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command that is given in a folder by who has the cluster's token."""
    environment = {**cluster.environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_a_run_makes_it_grow_and_it_shrinks(tmp_path: Path, cluster: Growing) -> None:
    engine = [f"engine.address={cluster.address}", "engine.workers=2", "results.folder=results"]
    waits = [*engine, "engine.wait_for_workers=150"]
    done = given(cluster, tmp_path, "-c", SPATL, "run", "demo", *TINY, *waits)
    assert done.returncode == 0, done.stderr
    assert "waiting up to 150 s for room for 2 workers: 0 fit now ..." in done.stdout
    assert cluster.shrinks()
    found, serial = (
        load_experiment(
            "demo", [*TINY, f"results.folder={tmp_path / folder}", "engine.backend=serial"]
        )
        for folder in ("results", "serial")
    )
    run(serial)
    assert_identical(everything(found), everything(serial))
    actors = pd.read_parquet(tmp_path / "results" / "clients")["actor"].dropna()
    assert actors.nunique() == 2


def test_a_spot_node_that_is_lost_costs_a_retried_group(tmp_path: Path, cluster: Growing) -> None:
    """Both nodes were started for the run; what is left, or comes after, ends it to the serial bits."""
    longer = [*TINY, "rounds=60", "evaluation.every=10", "checkpoints.seconds=0"]
    engine = [f"engine.address={cluster.address}", "engine.workers=2", "results.folder=results"]
    waits = [*engine, "engine.wait_for_workers=150"]
    lost_after("round 5 (", cluster, tmp_path, "-c", SPATL, "run", "demo", *longer, *waits)
    found, serial = (
        load_experiment(
            "demo", [*longer, f"results.folder={tmp_path / f}", "engine.backend=serial"]
        )
        for f in ("results", "serial")
    )
    run(serial)
    assert_identical(*(without_history(everything(each)) for each in (found, serial)))


@pytest.mark.parametrize(
    ("waits", "told"),
    [
        (
            "0",
            "engine.workers must fit the cluster (0 CPU): with num_cpus=1 and num_gpus=0 at most 0 do",
        ),
        ("8", "engine.workers must fit the cluster within engine.wait_for_workers=8 seconds: with"),
    ],
)
def test_what_it_cannot_grow_to_is_refused(
    tmp_path: Path, cluster: Growing, waits: str, told: str
) -> None:
    assert cluster.shrinks()
    engine = [f"engine.address={cluster.address}", "engine.workers=3"]
    waiting = [*engine, f"engine.wait_for_workers={waits}", "results.folder=results"]
    done = given(cluster, tmp_path, "-c", SPATL, "run", "demo", *TINY, *waiting)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.strip().endswith("got 3")


def test_a_sweep_makes_it_grow_and_it_shrinks(tmp_path: Path, cluster: Growing) -> None:
    assert cluster.shrinks()
    (tmp_path / "grid.yaml").write_text(GRID, encoding="utf-8")
    command = [str(ROOT / "tune" / "sweep.py"), "grid.yaml", "results.folder=results"]
    options = ["--no-estimate", "--parallel", "2", "--address", cluster.address]
    done = given(cluster, tmp_path, *command, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = pd.read_parquet(tmp_path / "results" / "runs")
    assert runs["status"].tolist() == ["finished"] * 2
    assert cluster.shrinks()


def test_a_sweep_goes_on_with_a_run_whose_node_is_lost(tmp_path: Path, cluster: Growing) -> None:
    """The only node, once the run has a checkpoint; another one is started for it."""
    assert cluster.shrinks()
    longer = GRID.replace("rounds: 2", "rounds: 100, checkpoints.seconds: 0").replace(
        "[0, 1]", "[0]"
    )
    (tmp_path / "grid.yaml").write_text(longer, encoding="utf-8")
    command = [str(ROOT / "tune" / "sweep.py"), "grid.yaml", "results.folder=results"]
    options = ["--no-estimate", "--parallel", "1", "--address", cluster.address]
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(given, cluster, tmp_path, *command, *options)
        while not any((tmp_path / "results" / "checkpoints").rglob("*")) and not ended.done():
            time.sleep(0.1)
        cluster.lose_a_node()
        done = ended.result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "its node is lost, it goes on elsewhere" in done.stdout
    runs = pd.read_parquet(tmp_path / "results" / "runs")
    assert runs["status"].tolist() == ["finished"]
    rounds = pd.read_parquet(tmp_path / "results" / "rounds")
    assert rounds["round"].tolist() == list(range(100))
