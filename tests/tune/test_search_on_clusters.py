"""Searches and sweeps on a cluster that is there already, with parts of GPUs; PBT after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from trials import trial_of

from spatl_ray.results.reader import read_rounds
from tune.book import Book
from tune.searchers import drawn_points
from tune.study import Study

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SMALL = ["model=mlp", "algorithm=fedavg", "training.epochs=1"]
SPACE = "training.lr: {loguniform: [1e-4, 2e-1]}"
GRID = f"""
name: small
experiment: demo
fixed: {{{", ".join(each.replace("=", ": ") for each in SMALL)}, rounds: 2}}
grid: {{seed: [0, 1]}}
"""


def started(folder: Path, script: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A command that is given in a folder, in a session of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tune" / script), *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)


def status_of(process: subprocess.Popen[bytes]) -> int:
    """How a command ended; it does not stay."""
    try:
        return process.wait(280)
    finally:
        process.kill()


def search_of(folder: Path, *more: str) -> list[str]:
    file = folder / "space.yaml"
    file.write_text(SPACE, encoding="utf-8")
    return ["demo", *SMALL, "results.folder=results", "--name", "mine", "--space", str(file), *more]


def sweep_of(folder: Path, *more: str) -> list[str]:
    file = folder / "grid.yaml"
    file.write_text(GRID, encoding="utf-8")
    return [str(file), "results.folder=results", "--no-estimate", *more]


def reserved() -> dict[str, list[dict[str, float]]]:
    """The bundles of all placement groups that the cluster has had, by the group's id."""
    from ray.util import placement_group_table

    return {
        name: list(group["bundles"].values()) for name, group in placement_group_table().items()
    }


def reserved_since(before: dict[str, Any]) -> list[list[dict[str, float]]]:
    return [group for name, group in reserved().items() if name not in before]


@pytest.mark.parametrize("command", ["search", "sweep"])
def test_a_running_cluster_is_joined_and_lives_on(
    tmp_path: Path, ray_cluster: Any, command: str
) -> None:
    import ray

    before = reserved()
    parts = ["engine.num_gpus=0.25", "engine.num_cpus=0.5", "engine.device=cpu"]
    address = ["--address", ray_cluster.address, *parts]
    if command == "search":
        process = started(
            tmp_path, "search.py", *search_of(tmp_path, "--trials", "2", "rounds=2", *address)
        )
    else:
        process = started(tmp_path, "sweep.py", *sweep_of(tmp_path, *address))
    assert status_of(process) == 0
    runs = pd.read_parquet(tmp_path / "results" / "runs")
    assert runs["status"].tolist() == ["finished"] * 2
    assert all(node["Alive"] for node in ray.nodes())
    assert reserved_since(before) == [[{"CPU": 0.5, "GPU": 0.25}]] * 2


def test_client_actors_lie_in_the_group_of_their_trial(tmp_path: Path, ray_cluster: Any) -> None:
    before = reserved()
    engine = ["engine.backend=ray", "engine.num_gpus=0.5", "engine.device=cpu"]
    # All GPUs are reserved by the trial itself: actors outside of its group would wait for ever.
    for workers in ("null", "4"):
        folder = tmp_path / workers
        folder.mkdir()
        more = [*engine, f"engine.workers={workers}", "rounds=2", "--trials", "1"]
        process = started(
            folder, "search.py", *search_of(folder, *more, "--address", ray_cluster.address)
        )
        assert status_of(process) == 0
        actors = set(pd.read_parquet(folder / "results" / "clients")["actor"].dropna())
        assert len(actors) == (1 if workers == "null" else 4)
    one = {"CPU": 1.0, "GPU": 0.5}
    assert sorted(map(len, reserved_since(before))) == [1, 4]
    assert all(bundle == one for group in reserved_since(before) for bundle in group)


TRIALS, ROUNDS = 4, 10
COLUMNS = ["round", "train_loss", "local_validation_accuracy_mean", "bytes_up", "lr"]


def replayed(study: Study, folder: Path, rates: Sequence[float]) -> list[list[Any]]:
    """Rows of a run that had these rates, by packing and unpacking by hand."""
    study = replace(study, overrides=(*study.overrides, f"results.folder={folder}"))
    trial = trial_of(study, folder, "t100", rates[0])
    trial.train()
    name, last = "t100", rates[0]
    for number, rate in enumerate(rates[1:], start=101):
        if rate != last:
            saved, name, last = trial.save_checkpoint(""), f"t{number}", rate
            trial.cleanup()
            trial = trial_of(study, folder, name, rate)
            trial.load_checkpoint(saved)
        trial.train()
    run_id = study.experiment(name, {"training.lr": last}).run_id
    return [[row[column] for column in COLUMNS] for row in read_rounds(folder, run_id)]


def cloned(book: Book) -> bool:
    """Whether a trial is elsewhere than it was drawn."""
    entries = book.entries()
    if len(entries) < TRIALS:
        return False
    study = Study.from_json((book.folder / "study.json").read_text())
    return [entry.point for entry in entries] != [
        entry.point for entry in drawn_points(study, [], TRIALS)
    ]


def test_pbt_that_was_killed_goes_on_and_its_clones_are_exact(tmp_path: Path) -> None:
    arguments = search_of(tmp_path, "--scheduler", "pbt", "--grace", "2")
    arguments += [f"rounds={ROUNDS}", "--trials", str(TRIALS), "--objective", "accuracy"]
    book = Book(tmp_path / "results" / "tune" / "mine")
    process = started(tmp_path, "search.py", *arguments)
    begun = time.monotonic()
    while not cloned(book):
        assert process.poll() is None, "it ended before there was a clone"
        assert time.monotonic() - begun < 250
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert any(entry.status == "begun" for entry in book.entries())
    again = started(tmp_path, "search.py", *arguments, "--resume")  # at once
    assert status_of(again) == 0
    study = Study.from_json((book.folder / "study.json").read_text())
    runs = pd.read_parquet(tmp_path / "results" / "runs")
    finished = runs[runs["status"] == "finished"].set_index("trial_id")["run_id"].astype(str)
    assert sorted(finished.index) == [f"t{number:03d}" for number in range(TRIALS)]
    assert set(runs["status"]) <= {"finished", "interrupted"}
    clones = 0
    for entry in book.entries():
        assert entry.status == "ended"
        run_id = study.experiment(entry.trial, entry.point).run_id
        assert run_id == finished[entry.trial]
        rows = read_rounds(tmp_path / "results", run_id)
        assert [row["round"] for row in rows] == list(range(ROUNDS))
        rates = [row["lr"] for row in rows]
        assert rates[-1] == entry.point["training.lr"]
        clones += len(set(rates)) > 1
        found = [[row[column] for column in COLUMNS] for row in rows]
        assert found == replayed(study, tmp_path / f"replayed-{entry.trial}", rates)
    assert clones


def test_ctrl_c_ends_a_search_that_goes_on_later(tmp_path: Path) -> None:
    arguments = search_of(tmp_path, "--trials", "6", f"rounds={ROUNDS}", "--concurrent", "2")
    process = started(tmp_path, "search.py", *arguments)
    book = Book(tmp_path / "results" / "tune" / "mine")
    begun = time.monotonic()
    while not any(entry.status == "ended" for entry in book.entries()):
        assert process.poll() is None
        assert time.monotonic() - begun < 250
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert status_of(process) == 130
    runs = pd.read_parquet(tmp_path / "results" / "runs")
    assert set(runs["status"]) <= {"finished", "interrupted"}
    assert len(runs) < 6
    again = started(tmp_path, "search.py", *arguments, "--resume")
    assert status_of(again) == 0
    runs = pd.read_parquet(tmp_path / "results" / "runs")
    assert sorted(runs["trial_id"]) == [f"t{number:03d}" for number in range(6)]
    assert set(runs["status"]) == {"finished"}
