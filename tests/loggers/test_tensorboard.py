"""Event files, read back as TensorBoard reads them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import small, table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import spatl_ray
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.loggers.registry import make_loggers
from spatl_ray.loggers.tensorboard import TensorBoard

OWN_SPLIT = "accuracy/local_test_accuracy_mean"


def experiment_in(folder: Path, **fields: Any) -> Experiment:
    results = {"folder": str(folder), "overwrite": True, "loggers": ["tensorboard"]}
    return small(folder, rounds=2, results=results, **fields)


def files(folder: Path, run_id: str) -> Path:
    return folder / "tensorboard" / f"run_id={run_id}"


def read(folder: Path, run_id: str) -> EventAccumulator:
    everything = {"scalars": 0, "histograms": 0, "tensors": 0}  # it keeps a sample otherwise
    return EventAccumulator(str(files(folder, run_id)), size_guidance=everything).Reload()


def row(round_: int, **values: object) -> dict[str, object]:
    return {"round": round_, "accepted": 3, "density": 0.5, "train_loss": None, **values}


def curve(read_back: EventAccumulator, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in read_back.Scalars(tag)}


def test_numbers_stand_in_groups_and_the_unknown_is_left_out(tmp_path: Path) -> None:
    logger = TensorBoard(experiment_in(tmp_path))
    logger.run_started(experiment_in(tmp_path), "r")
    first = {"train_loss": 2.5, "bytes_up": 2**20, "local_test_accuracy_mean": None}
    logger.round_ended(row(0, **first, seconds_train=0.5))
    second = {
        "local_test_accuracy_mean": 0.75,
        "simulated_seconds": 8.0,
        "after_loss": float("nan"),
    }
    logger.round_ended(row(1, **second))
    logger.run_ended("finished")
    back = read(tmp_path, "r")
    assert {tag: curve(back, tag) for tag in back.Tags()["scalars"]} == {
        "round/accepted": {0: 3, 1: 3},
        "round/density": {0: 0.5, 1: 0.5},
        "loss/train_loss": {0: 2.5},
        "bytes/bytes_up": {0: 2**20},
        "seconds/seconds_train": {0: 0.5},
        OWN_SPLIT: {1: 0.75},
        "simulated/simulated_seconds": {1: 8},
    }


def test_clients_that_were_evaluated_are_a_histogram(tmp_path: Path) -> None:
    logger = TensorBoard(experiment_in(tmp_path))
    logger.run_started(experiment_in(tmp_path), "r")
    logger.clients_ended(0, [{"client": 0, "local_test_accuracy": None}])
    accuracies = [0.125, 0.625, 0.64, 1.0, None]
    logger.clients_ended(1, [{"local_test_accuracy": each} for each in accuracies])
    logger.run_ended("finished")
    (event,) = read(tmp_path, "r").Histograms("clients/local_test_accuracy")
    spread = event.histogram_value
    assert event.step == 1
    assert (spread.num, spread.min, spread.max) == (4, 0.125, 1.0)
    assert spread.sum == pytest.approx(0.125 + 0.625 + 0.64 + 1.0)
    limits = np.round(spread.bucket_limit, 6).tolist()
    counts = {limit: n for limit, n in zip(limits, spread.bucket, strict=True) if n}
    assert counts == {0.15: 1, 0.65: 2, 1.0: 1}, "in twentieths, by their upper ends"


def test_the_config_is_text_and_hyperparameters(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, algorithm={"name": "spatl", "keep": 0.25})
    logger = TensorBoard(experiment)
    logger.run_started(experiment, "r")
    logger.run_ended("finished")
    back = read(tmp_path, "r")
    (text,) = back.Tensors("config/text_summary")
    assert json.loads(text.tensor_proto.string_val[0]) == json.loads(experiment.model_dump_json())
    start = hparams(back, "session_start_info").session_start_info.hparams
    assert start["algorithm.keep"].number_value == 0.25
    assert start["algorithm.name"].string_value == "spatl"
    assert start["seed"].number_value == 0
    assert start["model.options.hidden"].string_value == "[16]"
    assert not [name for name in start if name.startswith(("engine", "results"))]
    metrics = hparams(back, "experiment").experiment.metric_infos
    assert OWN_SPLIT in [metric.name.tag for metric in metrics]


def hparams(back: EventAccumulator, name: str) -> HParamsPluginData:
    """What the plug-in for hyperparameters finds."""
    content = back.SummaryMetadata(f"_hparams_/{name}").plugin_data.content
    return HParamsPluginData.FromString(content)


@pytest.mark.parametrize(("status", "ends"), [("finished", True), ("interrupted", False)])
def test_only_a_finished_run_counts_as_one(tmp_path: Path, status: str, ends: bool) -> None:
    logger = TensorBoard(experiment_in(tmp_path))
    logger.run_started(experiment_in(tmp_path), "r")
    logger.run_ended(status)
    back = read(tmp_path, "r")
    assert ("_hparams_/session_end_info" in back.summary_metadata) == ends


def test_a_run_that_never_started_leaves_nothing(tmp_path: Path) -> None:
    logger = TensorBoard(experiment_in(tmp_path))
    logger.run_ended("failed")
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_of_one_id_empties_its_own_folder_only(tmp_path: Path) -> None:
    for run_id, rounds in (("r", 3), ("other", 3), ("r", 1)):
        logger = TensorBoard(experiment_in(tmp_path))
        logger.run_started(experiment_in(tmp_path), run_id)
        for round_ in range(rounds):
            logger.round_ended(row(round_))
        logger.run_ended("finished")
    assert curve(read(tmp_path, "r"), "round/accepted") == {0: 3}
    assert len(list(files(tmp_path, "r").iterdir())) == 1
    assert curve(read(tmp_path, "other"), "round/accepted") == {0: 3, 1: 3, 2: 3}


def test_a_real_run_shows_what_its_tables_hold(tmp_path: Path) -> None:
    """Twice, so that the second replaces the first."""
    experiment = experiment_in(tmp_path, algorithm={"name": "spatl"})
    spatl_ray.run(experiment)
    spatl_ray.run(experiment)
    back = read(tmp_path, experiment.run_id)
    rounds = table(tmp_path, "rounds").set_index("round").drop(columns="run_id")
    shown = {tag.rpartition("/")[2]: curve(back, tag) for tag in back.Tags()["scalars"]}
    assert set(shown) == {name for name in rounds if rounds[name].notna().any()}
    for name, values in shown.items():
        assert values == rounds[name].dropna().astype(np.float32).to_dict(), name
    clients = table(tmp_path, "clients").groupby("round")["local_test_accuracy"]
    events = back.Histograms("clients/local_test_accuracy")
    spreads = {event.step: event.histogram_value for event in events}
    assert {step: spread.num for step, spread in spreads.items()} == clients.count().to_dict()
    sums = {step: spread.sum for step, spread in spreads.items()}
    assert sums == pytest.approx(clients.sum().to_dict())


def test_a_missing_package_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # Python then finds no such package
    with pytest.raises(
        ConfigError,
        match=r"^results\.loggers must .* got 'tensorboard' .*pip install 'spatl_ray\[tensorboard\]'",
    ):
        make_loggers(experiment_in(tmp_path))
    assert list(tmp_path.iterdir()) == []
