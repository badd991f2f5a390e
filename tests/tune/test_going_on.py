"""Broken-off runs of searches and sweeps: whose code they name, and who still holds them."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken_off import ROUNDS, Watch, broken_off, experiment_of
from own_modules import modules_in
from trials import study_of, trial_of

from spatl_ray.config import Experiment
from spatl_ray.engine.lock import alone
from spatl_ray.errors import ConfigError, ResultsError
from tune import going_on
from tune.going_on import begin, go_on

LOGGER = """
from pathlib import Path

from spatl_ray import Callback

Path("called").touch()


class Logger(Callback):
    def __init__(self, experiment): ...
"""
FOREIGN = {"loggers": ["foreign_part:Logger"]}
MLP = {"name": "mlp", "options": {"hidden": [8]}}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A current folder, and somebody else's module on the path beside it."""
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here, beside):
        folder.mkdir()
    (beside / "foreign_part.py").write_text(LOGGER)
    monkeypatch.syspath_prepend(str(beside))
    with modules_in(here, monkeypatch, own_part=LOGGER):
        yield
    sys.modules.pop("foreign_part", None)


def config_changed(experiment: Experiment, **results: Any) -> None:
    """Somebody has changed what the run's row says of its results: its id stays."""
    folder = Path(experiment.results.folder) / "runs" / f"run_id={experiment.run_id}"
    (path,) = folder.glob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    config = json.loads(table["config"][0].as_py())
    config["results"] |= results
    place = table.schema.get_field_index("config")
    column = pa.array([json.dumps(config)])
    pq.write_table(table.set_column(place, table.schema.field(place), column), path)


@pytest.fixture
def begun(tmp_path: Path) -> Experiment:
    """A run that was broken off after three rounds."""
    experiment = experiment_of(tmp_path / "results", "fedavg", model=MLP)
    broken_off(experiment, after=2)
    return experiment


def test_code_that_only_the_results_name_is_not_run(begun: Experiment) -> None:
    config_changed(begun, **FOREIGN)
    with pytest.raises(
        ConfigError, match=r"results\.loggers\[0\] of run .* got 'foreign_part:Logger'"
    ):
        go_on(begun, (), Path.cwd())
    assert not Path("called").exists()


def test_own_code_and_code_that_is_asked_for_now_is_run(begun: Experiment) -> None:
    config_changed(begun, loggers=["own_part:Logger"])
    assert go_on(begun, (), Path.cwd()).status == "finished"
    assert Path("called").exists()


def test_the_same_code_as_is_asked_for_now_is_run(begun: Experiment) -> None:
    config_changed(begun, **FOREIGN)
    results = begun.results.model_copy(update={"loggers": tuple(FOREIGN["loggers"])})
    asked = begun.model_copy(update={"results": results})
    assert go_on(asked, (), Path.cwd()).status == "finished"


def test_a_trial_does_not_run_foreign_code(tmp_path: Path) -> None:
    study = study_of(tmp_path, checkpoints={"seconds": 0.0})
    first = trial_of(study, tmp_path, "t000")
    first.train()
    first.cleanup()
    config_changed(study.experiment("t000", {"training.lr": 0.05}), **FOREIGN)
    with pytest.raises(ConfigError, match="foreign_part:Logger"):
        trial_of(study, tmp_path, "t000").step()
    assert not Path("called").exists()


def held(experiment: Experiment, seconds: float) -> threading.Thread:
    """Somebody who holds a run for so long."""
    taken = threading.Event()

    def hold() -> None:
        with alone(Path(experiment.results.folder), experiment.run_id):
            taken.set()
            time.sleep(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    return thread


@pytest.mark.parametrize("is_new", [True, False])
def test_a_process_that_is_dying_is_waited_for(
    tmp_path: Path, begun: Experiment, is_new: bool
) -> None:
    experiment = begun.model_copy(update={"name": "another"}) if is_new else begun
    holder, watch = held(experiment, 0.7), Watch()
    if is_new:
        begin(experiment, (watch,))
    else:
        go_on(experiment, (watch,), Path.cwd())
    holder.join()
    assert watch.rounds == list(range(0 if is_new else 2, ROUNDS))


def test_a_process_that_lives_on_is_told(
    begun: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(going_on, "PATIENCE", 0.3)
    holder = held(begun, 1.5)
    with pytest.raises(ResultsError, match="must not be going on already, got process"):
        go_on(begun, (), Path.cwd())
    holder.join()
