"""Signals to a run through Ray, which has handlers of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from broken_off import without_history
from identity import assert_identical, everything
from small_runs import small

from spatl_ray import load_experiment, run
from spatl_ray.config import Experiment
from spatl_ray.engine.checkpoint import Checkpoints
from spatl_ray.engine.folders import checkpoint_folder


@pytest.fixture
def before() -> Iterator[Any]:
    """Who listened to SIGTERM, restored afterwards."""
    handler = signal.getsignal(signal.SIGTERM)
    yield handler
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.ray  # Nothing starts, but importing Ray takes seconds.
@pytest.mark.parametrize("has_own", [True, False])
def test_a_callers_sigterm_handler_outlives_the_start_of_ray(
    tmp_path: Path, before: Any, has_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray.init` sets one that exits at once; where nobody listened, it is better than none."""
    from spatl_ray.engine import ray_cluster

    def callers(*_: object) -> None:
        """The command line's."""

    def rays(*_: object) -> None:
        """Ray's."""

    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, rays)

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: False)
    signal.signal(signal.SIGTERM, callers if has_own else signal.SIG_DFL)
    ray_cluster.RayCluster(small(tmp_path).engine).connect()
    assert signal.getsignal(signal.SIGTERM) is (callers if has_own else rays)


def command(*arguments: str) -> subprocess.Popen[str]:
    """A process of the command line, which starts Ray by itself."""
    return subprocess.Popen(
        [sys.executable, "-m", "spatl_ray.cli", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def experiment_of(folder: Path, *overrides: str) -> tuple[Experiment, list[str]]:
    """Of the demo, and the overrides for it."""
    small = ["model=mlp", "algorithm=scaffold", "clients=6", "sample_ratio=0.5", "rounds=40"]
    given = [*small, "checkpoints.seconds=0", f"results.folder={folder}", *overrides]
    return load_experiment("demo", given), given


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.integration
def test_sigterm_ends_a_run_through_ray_which_then_goes_on(tmp_path: Path) -> None:
    """As a cluster's scheduler ends it."""
    experiment, given = experiment_of(tmp_path / "ray", "engine.workers=2")
    process = command("run", "demo", *given)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("round 3 "):
            process.terminate()
    assert process.wait() == 128 + signal.SIGTERM, said
    assert "run interrupted\n" in said
    assert pd.read_parquet(tmp_path / "ray" / "runs")["status"].tolist() == ["interrupted"]
    taken = Checkpoints(checkpoint_folder(experiment), 2).rounds()
    assert 2 <= taken[-1] < 39
    resumed = command("resume", experiment.run_id, "--folder", str(tmp_path / "ray"))
    out, _ = resumed.communicate()
    assert resumed.returncode == 0, out
    assert f"from round {taken[-1] + 1} on" in out
    plain, _ = experiment_of(tmp_path / "serial", "engine.backend=serial")
    run(plain)
    assert_identical(without_history(everything(experiment)), without_history(everything(plain)))
