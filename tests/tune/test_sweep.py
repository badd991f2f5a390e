"""Real sweeps: what has finished is skipped, what broke off goes on, what failed is listed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from spatl_ray import run
from tune import sweep
from tune.grid import read_grid

GRID = """
name: small
experiment: demo
fixed: {rounds: 3, model: mlp, training.epochs: 1, evaluation.every: 3}
grid:
  algorithm: [fedavg, scaffold]
  seed: [0, 1]
"""


def arguments_of(folder: Path, *more: str, text: str = GRID) -> list[str]:
    file = folder / "grid.yaml"
    file.write_text(text, encoding="utf-8")
    return [str(file), f"results.folder={folder / 'results'}", *more]


def runs_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "results" / "runs")


def test_a_dry_run_says_what_there_is_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    arguments = arguments_of(tmp_path)
    first, *others = read_grid(*[arguments[0]], overrides=arguments[1:]).cells
    run(first.experiment)
    before = sorted((tmp_path / "results").rglob("*"))
    assert sweep.main([*arguments, "--dry-run", "--parallel", "2"]) == 0
    told = capsys.readouterr().out
    assert "4 runs: 3 new, 1 finished" in told
    assert "to do: 3 runs, 9 rounds, 90 client rounds; about" in told
    for cell in (first, *others):
        status = "finished" if cell is first else "new"
        (line,) = [each for each in told.splitlines() if f" {cell.experiment.run_id} " in each]
        assert line.split("│")[-2].strip() == status
    assert sorted((tmp_path / "results").rglob("*")) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["model=mlpp"], "model.name must be one of"),
        (["data=mnsit"], "data.name must be one of"),
        (["partition={name: dirichlet, beta: 0}"], "partition.beta must be greater than 0, got 0"),
        (["rouns=3"], "rouns is no field of an experiment; did you mean rounds?"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert sweep.main(arguments_of(tmp_path, *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_run_whose_process_died_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = read_grid(*arguments_of(tmp_path)[:1], overrides=arguments_of(tmp_path)[1:])
    ended, died, failed, _ = (cell.experiment for cell in grid.cells)
    run(ended)
    for experiment, status in ((died, "running"), (failed, "failed")):
        run(experiment)
        (path,) = (tmp_path / "results" / "runs" / f"run_id={experiment.run_id}").glob("*.parquet")
        frame = pq.read_table(path, partitioning=None)
        place = frame.schema.get_field_index("status")
        column = pa.array([status], frame.schema.field(place).type)
        pq.write_table(frame.set_column(place, frame.schema.field(place), column), path)
    console = Console()
    assert sweep._list_failed(grid, [ended.run_id, died.run_id], console) == 1
    told = capsys.readouterr().out
    assert f"did not end: {died.run_id} is broken off" in told
    assert f"failed: {failed.run_id}" in told
    assert ended.run_id not in told


def test_an_override_that_leaves_no_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = GRID.replace("seed: [0, 1]", "clients, sample_ratio: [[10, 1.0], [30, 0.4]]")
    assert sweep.main([*arguments_of(tmp_path, text=text), "clients=50", "--dry-run"]) == 2
    assert "must leave runs to do, got none with" in capsys.readouterr().err


@pytest.mark.ray
def test_a_sweep_runs_what_is_missing(
    tmp_path: Path, ray_cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = arguments_of(tmp_path, "--no-estimate")
    assert sweep.main([*arguments, "seed=0"]) == 0
    runs = runs_of(tmp_path)
    assert sorted(runs["algorithm"]) == ["fedavg", "scaffold"]
    assert set(runs["status"]) == {"finished"}
    assert set(runs["sweep_id"]) == {"small"}
    assert runs["trial_id"].isna().all()
    rows = list((tmp_path / "results").rglob("*.parquet"))
    before = {path: path.stat().st_mtime_ns for path in rows}
    capsys.readouterr()
    assert sweep.main([*arguments, "seed=0"]) == 0
    assert "2 runs: 2 finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in rows}


@pytest.mark.ray
@pytest.mark.slow
def test_failed_runs_are_listed_and_retried(
    tmp_path: Path,
    ray_cluster: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "failing_rates.py").write_text(
        "from spatl_ray.algorithms.fedavg import FedAvg\n"
        "import os\n"
        "from spatl_ray import config\n\n\n"
        "class Failing(FedAvg):\n"
        "    def __init__(self, options):\n"
        "        super().__init__(config.FedAvg())\n"
        "        self.marker = options['marker']\n\n"
        "    def tasks(self, view):\n"
        "        if os.path.exists(self.marker):\n"
        "            raise ValueError('the disk is gone')\n"
        "        return super().tasks(view)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "marker"
    marker.touch()
    text = GRID.replace(
        "[fedavg, scaffold]",
        f"[fedavg, {{name: 'failing_rates:Failing', options: {{marker: '{marker}'}}}}]",
    )
    arguments = arguments_of(tmp_path, "--no-estimate", "seed=0", text=text)
    assert sweep.main(arguments) == 1
    assert "the disk is gone" in capsys.readouterr().out
    assert sorted(runs_of(tmp_path)["status"]) == ["failed", "finished"]
    marker.unlink()
    assert sweep.main(arguments) == 1  # listed, not run again
    assert sorted(runs_of(tmp_path)["status"]) == ["failed", "finished"]
    assert sweep.main([*arguments, "--retry-failed"]) == 0
    assert sorted(runs_of(tmp_path)["status"]) == ["finished", "finished"]


@pytest.mark.slow
def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "tune/sweep.py", *arguments_of(tmp_path, "--no-estimate")]
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=root, env=environment, start_new_session=True)

    process = started()
    begun = time.monotonic()
    folder = tmp_path / "results" / "runs"
    while not any(folder.rglob("*.parquet")) or "finished" not in set(runs_of(tmp_path)["status"]):
        assert process.poll() is None
        assert time.monotonic() - begun < 280
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert started().wait() == 0
    runs = runs_of(tmp_path)
    assert len(runs) == 4
    assert set(runs["status"]) == {"finished"}
    rounds = pd.read_parquet(tmp_path / "results" / "rounds")
    assert rounds.groupby("run_id", observed=True)["round"].count().tolist() == [3] * 4
