"""A trial is a plain run, also if it is stopped, restored, cloned or begun again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from identity import assert_identical
from trials import ROUNDS, SPACE, numbers, point, study_of, to_end, trial_of

from spatl_ray import run
from spatl_ray.engine.branch import unpack
from spatl_ray.errors import ConfigError, EngineError
from tune.book import ENDED, Book, Entry
from tune.trainable import close_results


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a plain run of the trials' experiment gives."""
    folder = tmp_path_factory.mktemp("plain")
    experiment = study_of(folder).experiment("t000", {"training.lr": 0.05})
    run(experiment)
    return numbers(experiment)


def experiment_of(study: Any, trial: str, lr: float = 0.05) -> Any:
    return study.experiment(trial, {"training.lr": lr})


def test_a_trial_is_a_plain_run(tmp_path: Path, plain: dict[str, Any]) -> None:
    study = study_of(tmp_path)
    trial = trial_of(study, tmp_path, "t000")
    results = to_end(trial)
    assert [result["rounds"] for result in results] == [1, 2, 3, 4]
    assert_identical(numbers(experiment_of(study, "t000")), plain)
    row = pd.read_parquet(tmp_path / "runs").iloc[0]
    assert (row["sweep_id"], row["trial_id"], row["status"]) == ("study", "t000", "finished")
    rounds = pd.read_parquet(tmp_path / "rounds")
    told = [result["accuracy"] for result in results]
    assert told == rounds["local_validation_accuracy_mean"].tolist()
    sent = rounds["bytes_up_cumulative"] + rounds["bytes_down_cumulative"]
    assert [result["bytes"] for result in results] == sent.tolist()


def test_the_process_is_used_again(tmp_path: Path, plain: dict[str, Any]) -> None:
    study = study_of(tmp_path)
    trial = trial_of(study, tmp_path, "t000", lr=0.01)
    trial.train()  # stopped after a round, as ASHA does
    assert trial.reset({"point": point("t001")})
    to_end(trial)
    assert_identical(numbers(experiment_of(study, "t001")), plain)
    runs = pd.read_parquet(tmp_path / "runs").set_index("trial_id")["status"]
    assert runs.to_dict() == {"t000": "interrupted", "t001": "finished"}


def test_a_paused_trial_goes_on_exactly(tmp_path: Path, plain: dict[str, Any]) -> None:
    study = study_of(tmp_path, "pbt")
    trial = trial_of(study, tmp_path, "t000")
    for _ in range(2):
        trial.train()
    saved = trial.save_checkpoint("")
    trial.reset({"point": point("t001", lr=0.01)})  # another trial has the process
    trial.train()
    trial.reset({"point": point("t000")})
    trial.load_checkpoint(saved)
    assert [result["rounds"] for result in to_end(trial)] == [3, 4]
    assert_identical(numbers(experiment_of(study, "t000")), plain)


def test_a_clone_is_exact(tmp_path: Path, plain: dict[str, Any]) -> None:
    study = study_of(tmp_path, "pbt")
    donor = trial_of(study, tmp_path, "t000")
    for _ in range(2):
        donor.train()
    saved = donor.save_checkpoint("")
    donor.train()  # it goes on
    clone = trial_of(study, tmp_path, "t001")
    clone.load_checkpoint(saved)
    assert [result["rounds"] for result in to_end(clone)] == [3, 4]
    to_end(donor)
    for trial in ("t000", "t001"):
        assert_identical(numbers(experiment_of(study, trial)), plain)


def test_a_clone_goes_on_under_its_own_rate(tmp_path: Path, plain: dict[str, Any]) -> None:
    study = study_of(tmp_path, "pbt")
    donor = trial_of(study, tmp_path, "t000")
    for _ in range(2):
        donor.train()
    saved = donor.save_checkpoint("")
    found = []
    for name in ("t001", "t002"):
        clone = trial_of(study, tmp_path, name, lr=0.01)
        clone.load_checkpoint(saved)
        to_end(clone)
        found.append(numbers(experiment_of(study, name, 0.01)))
    assert_identical(*found)
    assert found[0]["rounds.lr"].tolist() == [0.05, 0.05, 0.01, 0.01]
    loss = "rounds.train_loss"
    assert found[0][loss][:2].tolist() == plain[loss][:2].tolist()
    assert found[0][loss][2:].tolist() != plain[loss][2:].tolist()
    # What the book says is what the trial is at now.
    assert Book(tmp_path / "tune" / "study").entry("t001") == Entry("t001", {"training.lr": 0.01})


def test_only_rates_change_in_the_middle(tmp_path: Path) -> None:
    study = study_of(tmp_path, "pbt")
    donor = trial_of(study, tmp_path, "t000")
    donor.train()
    folder = Path(donor.save_checkpoint("")["folder"])
    other = experiment_of(study, "t001").model_copy(update={"clients": 11})
    with pytest.raises(ConfigError, match="clients must stay 12 in a branch, got 11"):
        unpack(folder, other)
    donor.cleanup()


def test_a_trial_that_was_broken_off_goes_on(tmp_path: Path, plain: dict[str, Any]) -> None:
    study = study_of(tmp_path, checkpoints={"seconds": 0.0})
    first = trial_of(study, tmp_path, "t000")
    told = [first.train() for _ in range(2)]
    first.cleanup()
    results = to_end(trial_of(study, tmp_path, "t000"))
    # The scheduler sees the whole trial again.
    assert [result["rounds"] for result in results] == [1, 2, 3, 4]
    assert [r["accuracy"] for r in results[:2]] == [r["accuracy"] for r in told]
    assert_identical(numbers(experiment_of(study, "t000")), plain)


@pytest.mark.parametrize("rounds", [2, ROUNDS])
def test_an_ended_trial_is_told_and_not_run_again(tmp_path: Path, rounds: int) -> None:
    study = study_of(tmp_path)
    first = trial_of(study, tmp_path, "t000")
    told = [first.train() for _ in range(rounds)]
    first.cleanup()
    if rounds < ROUNDS:
        Book(tmp_path / "tune" / "study").write(Entry("t000", {"training.lr": 0.05}, ENDED))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    results = to_end(trial_of(study, tmp_path, "t000"))
    assert [r["accuracy"] for r in results] == [r["accuracy"] for r in told]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


def test_results_of_a_killed_process_are_closed(tmp_path: Path) -> None:
    study = study_of(tmp_path, results={"folder": str(tmp_path), "flush_seconds": 0.0})
    trial = trial_of(study, tmp_path, "t000")
    for _ in range(2):
        trial.train()
    run_id = experiment_of(study, "t000").run_id
    assert pd.read_parquet(tmp_path / "runs")["status"].tolist() == ["running"]
    rows = pd.read_parquet(tmp_path / "rounds")
    close_results(tmp_path, [run_id])
    row = pd.read_parquet(tmp_path / "runs").iloc[0]
    assert (row["status"], row["trial_id"]) == ("interrupted", "t000")
    assert pd.read_parquet(tmp_path / "rounds").equals(rows)
    trial.cleanup()


def test_what_a_run_raises_reaches_tune(tmp_path: Path) -> None:
    study = study_of(tmp_path, data={"name": "digits", "options": {"nothing": 1}})
    trial = trial_of(study, tmp_path, "t000")
    with pytest.raises(Exception, match="nothing"):
        trial.step()


def test_a_trial_is_saved_in_the_middle_only(tmp_path: Path) -> None:
    trial = trial_of(study_of(tmp_path, "pbt"), tmp_path, "t000")
    with pytest.raises(EngineError, match="trial t000 must have trained to be saved"):
        trial.save_checkpoint("")
    results = to_end(trial)
    assert math.isfinite(results[-1]["accuracy"])
    with pytest.raises(EngineError, match="must have begun, and not ended"):
        trial.save_checkpoint("")


def test_trials_are_evaluated_when_the_experiment_says(tmp_path: Path) -> None:
    evaluation = {"every": 3, "panel": 5, "global_samples": 60}
    study = study_of(tmp_path, space=SPACE, evaluation=evaluation)
    results = to_end(trial_of(study, tmp_path, "t000"))
    assert [result["rounds"] for result in results] == [3, 4]
