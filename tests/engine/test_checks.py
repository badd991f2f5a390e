"""What is found before any work starts, all of it at once; and runs that must not replace others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import checked_loggers
import numpy as np
import pytest
from small_runs import small

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import load_dataset
from spatl_ray.engine.prepare import prepare
from spatl_ray.errors import ConfigError, ResultsError, SpatlError

WRONG: dict[str, Any] = {
    "training": {"loss": "nowhere:loss", "augment": {"crop": 9}},
    "sampler": {"name": "nowhere:Sampler"},
    "availability": {"name": "trace", "file": "nowhere.csv"},
    "devices": {"trace": "nowhere.csv"},
    "results": {"loggers": ["nowhere:Logger"]},
}
NAMES = ("training.loss", "sampler.name", "availability.file", "devices.trace", "results.loggers")


def faults(experiment: Experiment) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(experiment)
    return "\n".join(caught.value.faults)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ("training.augment.crop",)),
        ({"model": {"name": "nowhere:Net"}}, ("training.augment.crop", "model.name")),
        (
            {"data": {"name": "nowhere:load"}, "model": {"name": "lenett"}},
            ("data.name", "model.name"),
        ),
    ],
    ids=["all is there but these", "without a model", "without data"],
)
def test_all_faults_show_at_once(tmp_path: Path, fields: dict[str, Any], names: Any) -> None:
    text = faults(small(tmp_path, **{**WRONG, **fields}))
    for name in (*NAMES, *names):
        assert name in text, name


def test_a_logger_is_made_once_and_only_for_a_run(tmp_path: Path) -> None:
    results = {"folder": str(tmp_path), "loggers": ["checked_loggers:Counting"]}
    prepare(small(tmp_path, results=results))
    assert checked_loggers.Counting.made == 0
    run(small(tmp_path, results=results, rounds=1))
    assert checked_loggers.Counting.made == 1


def test_batches_of_one_are_refused_where_batch_norm_cannot_take_them(tmp_path: Path) -> None:
    model = {"name": "torchvision.resnet18"}
    fields = {"model": model, "training": {"batch_size": 1}}
    with pytest.raises(SpatlError, match=r"training\.batch_size=1: take a larger one"):
        prepare(small(tmp_path, **fields))


def test_the_same_config_on_other_data_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as files that were changed."""
    experiment = small(tmp_path, rounds=1)
    dataset = load_dataset(experiment.data, 0)
    run(experiment)
    other = replace(dataset, train_x=(dataset.train_x + np.float32(1)))
    again = small(tmp_path, rounds=1, results={"folder": str(tmp_path), "overwrite": True})
    with monkeypatch.context() as changed:
        changed.setattr("spatl_ray.engine.prepare.load_dataset", lambda *given: other)
        with pytest.raises(ResultsError, match=r"is one of other data .* another name"):
            run(again)
    run(again)


def test_norm_sparsity_without_a_norm_is_found_before_any_work(tmp_path: Path) -> None:
    training = {"norm_sparsity": 0.1, "loss": "nowhere:loss"}
    text = faults(small(tmp_path, model={"name": "mlp"}, training=training))
    assert "training.norm_sparsity must be 0 for a model without" in text
    assert "training.loss" in text


def test_a_limit_that_nothing_enforces_is_refused(tmp_path: Path) -> None:
    """A serial run in a thread cannot stop a client; through Ray, and in the main thread, one can be."""
    engine = {"backend": "serial", "client_timeout": 60.0}
    found: list[str] = []

    def in_thread(experiment: Experiment) -> str:
        def go() -> None:
            try:
                prepare(experiment)
            except ConfigError as error:
                found.append(str(error))

        thread = Thread(target=go)
        thread.start()
        thread.join()
        return found.pop() if found else ""

    serial = small(tmp_path, engine=engine)
    assert in_thread(serial).startswith("engine.client_timeout must be null with backend serial")
    assert in_thread(serial).endswith("got 60. Backend ray keeps it")
    prepare(serial)
    assert in_thread(small(tmp_path, engine={**engine, "backend": "ray"})) == ""
    assert in_thread(small(tmp_path)) == ""
