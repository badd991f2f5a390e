"""Real searches on Ray: numbers of trials, schedulers, and a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from spatl_ray.results.reader import read_run
from tune import search
from tune.book import Book
from tune.study import Study
from tune.trials import front, outcomes

SPACE = """
training.lr: {loguniform: [1e-3, 2e-1]}
wire.uplink: {choice: [null, bfloat16]}
"""
ROUNDS = 4


def arguments_of(folder: Path, *more: str, space: str = SPACE) -> list[str]:
    file = folder / "space.yaml"
    file.write_text(space, encoding="utf-8")
    small = ["model=mlp", "algorithm=fedavg", f"rounds={ROUNDS}", "training.epochs=1"]
    results = f"results.folder={folder / 'results'}"
    return ["demo", *small, results, "--name", "mine", "--space", str(file), *more]


def runs_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "results" / "runs").sort_values("trial_id")


def study_of(folder: Path) -> tuple[Study, Book]:
    path = folder / "results" / "tune" / "mine"
    return Study.from_json((path / "study.json").read_text()), Book(path)


@pytest.mark.ray
def test_every_trial_is_a_run_of_the_tables(tmp_path: Path, ray_cluster: Any) -> None:
    assert search.main(arguments_of(tmp_path, "--trials", "3", "--search", "random")) == 0
    runs = runs_of(tmp_path)
    assert runs["trial_id"].tolist() == ["t000", "t001", "t002"]
    assert set(runs["sweep_id"]) == {"mine"}
    assert set(runs["status"]) == {"finished"}
    study, book = study_of(tmp_path)
    for entry, config in zip(book.entries(), runs["config"].map(json.loads), strict=True):
        assert entry.status == "ended"
        assert entry.point["training.lr"] == config["training"]["lr"]
        assert entry.point["wire.uplink"] == config["wire"]["uplink"]
    rounds = pd.read_parquet(tmp_path / "results" / "rounds")
    assert len(rounds) == 3 * ROUNDS
    # The front is what no other trial beats, on validation accuracy and all bytes.
    last = rounds[rounds["round"] == ROUNDS - 1].assign(run_id=lambda f: f["run_id"].astype(str))
    points = [
        (
            row["local_validation_accuracy_mean"],
            row["bytes_up_cumulative"] + row["bytes_down_cumulative"],
        )
        for _, row in last.iterrows()
    ]
    best = {p for p in points if not any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in points)}
    found = front(study, outcomes(study, book.entries()))
    assert {(each.figures["accuracy"], each.figures["bytes"]) for each in found} == best


@pytest.mark.ray
@pytest.mark.slow
def test_a_grid_runs_every_point(tmp_path: Path, ray_cluster: Any) -> None:
    space = (
        "training.lr: {loguniform: [0.01, 0.1], points: 2}\nwire.uplink: {choice: [null, bfloat16]}"
    )
    assert search.main(arguments_of(tmp_path, "--search", "grid", space=space)) == 0
    configs = runs_of(tmp_path)["config"].map(json.loads)
    found = {(c["training"]["lr"], c["wire"]["uplink"]) for c in configs}
    assert found == {(lr, up) for lr in (0.01, 0.1) for up in (None, "bfloat16")}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["asha", "asha-bytes", "median"])
def test_schedulers_stop_trials_early(tmp_path: Path, ray_cluster: Any, scheduler: str) -> None:
    more = ["--trials", "12", "--search", "random", "--scheduler", scheduler, "--concurrent", "2"]
    assert search.main(arguments_of(tmp_path, *more, "--objective", "accuracy")) == 0
    runs = runs_of(tmp_path)
    assert len(runs) == 12
    assert set(runs["status"]) <= {"finished", "interrupted"}
    assert "finished" in set(runs["status"])
    assert "interrupted" in set(runs["status"])


@pytest.mark.ray
@pytest.mark.slow
def test_pbt_clones_and_changes_rates(tmp_path: Path, ray_cluster: Any) -> None:
    more = ["--trials", "6", "--scheduler", "pbt", "--grace", "1"]
    space = "training.lr: {loguniform: [1e-4, 2e-1]}"
    assert search.main(arguments_of(tmp_path, *more, space=space)) == 0
    runs = runs_of(tmp_path)
    assert set(runs["trial_id"]) == {f"t{number:03d}" for number in range(6)}
    finished = runs[runs["status"] == "finished"]
    assert sorted(finished["trial_id"]) == sorted(set(runs["trial_id"]))
    rounds = pd.read_parquet(tmp_path / "results" / "rounds")
    rounds = rounds[rounds["run_id"].astype(str).isin(finished["run_id"].astype(str))]
    assert (rounds.groupby("run_id", observed=True)["round"].count() == ROUNDS).all()
    rates = rounds.groupby("run_id", observed=True)["lr"].nunique()
    assert (rates > 1).any()
    # One population, though four run at once: the last trial began before the first one ended.
    assert runs.groupby("trial_id")["start"].min().max() < finished["end"].min()
    # What a run was last trained under is what its config says.
    for run_id, rows in rounds.groupby("run_id", observed=True):
        config = json.loads(read_run(tmp_path / "results", str(run_id))["config"])
        assert rows.sort_values("round")["lr"].iloc[-1] == config["training"]["lr"]


@pytest.mark.ray
@pytest.mark.slow
def test_trials_start_client_actors_of_their_own(tmp_path: Path, ray_cluster: Any) -> None:
    engine = ["engine.backend=ray", "engine.workers=2", "engine.num_gpus=0.25", "engine.device=cpu"]
    more = ["--trials", "2", "--search", "random"]
    assert search.main([*arguments_of(tmp_path, *more), *engine]) == 0
    clients = pd.read_parquet(tmp_path / "results" / "clients")
    assert set(clients["actor"].dropna()) == {"client-actor-0", "client-actor-1"}
    # The same trials in one process each: the same numbers.
    serial = tmp_path / "serial"
    serial.mkdir()
    assert search.main(arguments_of(serial, *more)) == 0
    columns = ["round", "bytes_up", "local_validation_accuracy_mean", "global_test_accuracy"]
    tables = [pd.read_parquet(f / "results" / "rounds") for f in (tmp_path, serial)]
    first, second = (
        t.sort_values(["run_id", "round"])[columns].reset_index(drop=True) for t in tables
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.slow
def test_a_killed_search_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "tune/search.py", *arguments_of(tmp_path)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def started(*more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, *more], cwd=root, env=environment, start_new_session=True
        )

    process = started("--trials", "8")
    book = Book(tmp_path / "results" / "tune" / "mine")
    begun = time.monotonic()
    while sum(entry.status == "ended" for entry in book.entries()) < 3:
        assert process.poll() is None
        assert time.monotonic() - begun < 280
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ended = [entry for entry in book.entries() if entry.status == "ended"]
    finished = runs_of(tmp_path).query("status == 'finished'")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "results" / "rounds").rglob("*.parquet")}
    assert started("--resume").wait() == 0
    runs = runs_of(tmp_path)
    assert runs["trial_id"].tolist() == [f"t{number:03d}" for number in range(8)]
    assert set(runs["status"]) == {"finished"}
    assert [entry for entry in book.entries() if entry.trial in {e.trial for e in ended}] == ended
    # What had finished was not touched.
    for run_id in finished["run_id"].astype(str):
        folder = tmp_path / "results" / "rounds" / f"run_id={run_id}"
        assert all(files[path] == path.stat().st_mtime_ns for path in folder.glob("*.parquet"))
    rounds = pd.read_parquet(tmp_path / "results" / "rounds")
    assert (
        rounds.groupby("run_id", observed=True)["round"].apply(list).map(sorted).tolist()
        == [list(range(ROUNDS))] * 8
    )
    # More trials of the same search.
    assert started("--resume", "--trials", "10").wait() == 0
    assert len(runs_of(tmp_path)) == 10
