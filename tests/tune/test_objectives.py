"""What a search may aim at: never test data."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial
from trials import study_of

from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from
from spatl_ray.results.schema import TABLES
from tune.objectives import FIGURES, check_objectives, figures, told
from tune.schedulers import scheduler as scheduler_of


class NothingElse:
    """What a scheduler asks of Tune: no other trial is alive."""

    def get_live_trials(self) -> list[Any]:
        return []


def test_no_figure_reads_test_data_and_all_are_columns() -> None:
    columns = [column for figure in FIGURES.values() for column in figure.columns]
    assert not [column for column in columns if "test" in column]
    assert set(columns) <= set(TABLES["rounds"].names)


def test_figures_of_a_row() -> None:
    row = dict.fromkeys(TABLES["rounds"].names)
    row |= {"round": 4, "bytes_up_cumulative": 30, "bytes_down_cumulative": 12}
    row |= {"local_validation_accuracy_mean": 0.5, "global_test_accuracy": 0.9}
    found = figures(row)
    assert (found["rounds"], found["bytes"], found["bytes_up"]) == (5, 42, 30)
    assert found["accuracy"] == 0.5
    assert math.isnan(found["train_loss"])
    assert 0.9 not in found.values()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["acuracy"], "did you mean 'accuracy'?"),
        (["global_test_accuracy"], "objectives read validation data only"),
        (["panel_local_test_accuracy_mean"], "objectives read validation data only"),
        (["bytes", "bytes"], "objective bytes must be given once"),
        ([], "got none"),
        (["inference_flops"], "algorithm must keep a part of the model for inference"),
        (["simulated_seconds"], "devices must be given with objective simulated_seconds"),
    ],
)
def test_unknown_objectives_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_objectives(names, experiment_from({}))
    assert message in str(caught.value)


def test_accuracy_needs_validation_data() -> None:
    split = {"train": 0.8, "validation": 0.0, "test": 0.2}
    experiment = experiment_from({"data": {"name": "digits", "split": split}})
    with pytest.raises(ConfigError, match=r"data\.split\.validation must be above 0"):
        check_objectives(["accuracy"], experiment)
    check_objectives(["bytes"], experiment)


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_what_is_no_number_counts_as_the_worst(value: float | None) -> None:
    row = dict.fromkeys(TABLES["rounds"].names) | {"round": 0, "train_loss": value}
    found = told(row, ["train_loss", "accuracy"])
    assert (found["train_loss"], found["accuracy"]) == (1e30, 0.0)
    assert math.isnan(found["inference_flops"])  # no objective


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_trial_that_diverged_is_stopped(tmp_path: Path, scheduler: str) -> None:
    study = replace(study_of(tmp_path, scheduler), objectives=("train_loss",), most=9)
    made = scheduler_of(study)
    trials = [Trial(f"t{number}", stub=True) for number in range(5)]
    row = dict.fromkeys(TABLES["rounds"].names)
    decisions = []
    for number, trial in enumerate(trials):
        made.on_trial_add(NothingElse(), trial)
        loss = math.nan if number == 4 else 1.0 + 0.1 * number
        result = told({**row, "round": 0, "train_loss": loss}, study.objectives)
        decisions.append(made.on_trial_result(NothingElse(), trial, result))
    assert decisions[0] == "CONTINUE"
    assert decisions[4] == "STOP"


def test_the_median_rule_pauses_no_trial(tmp_path: Path) -> None:
    made = scheduler_of(replace(study_of(tmp_path, "median"), objectives=("train_loss",)))
    running, waiting = (Trial(f"t{number}", stub=True) for number in range(2))

    class OneWaits:
        def get_live_trials(self) -> list[Any]:
            return [running, waiting]

    assert waiting.status == Trial.PENDING
    row = dict.fromkeys(TABLES["rounds"].names) | {"train_loss": 1.0}
    for round_ in range(3):
        result = told({**row, "round": round_}, ("train_loss",))
        assert made.on_trial_result(OneWaits(), running, result) == "CONTINUE"
