"""Files that decide a run's numbers, and that somebody edits before the run goes on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from broken_off import broken_off
from identity import small
from own_modules import modules_in
from safetensors import safe_open
from safetensors.numpy import save_file

from spatl_ray import plugins, resume, run
from spatl_ray.cli import main
from spatl_ray.config import Experiment
from spatl_ray.engine.environment import digest_of, software
from spatl_ray.errors import ConfigError, ResultsError

pytestmark = pytest.mark.integration

OWN = """
from spatl_ray import config
from spatl_ray.algorithms.fedavg import FedAvg


class Own(FedAvg):
    def __init__(self, options):
        super().__init__(config.FedAvg(server_lr=1.0))
"""
LOGGER = """
from spatl_ray import Callback


class Logger(Callback):
    def __init__(self, experiment): ...
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with modules_in(tmp_path, monkeypatch, own_fedavg=OWN, own_logger=LOGGER):
        yield


def of_own(folder: Path) -> Experiment:
    results = {"folder": str(folder), "loggers": ["own_logger:Logger"]}
    return small(
        folder,
        {"name": "own_fedavg:Own"},
        rounds=4,
        model={"name": "mlp", "options": {"hidden": [8]}},
        checkpoints={"seconds": 0.0},
        engine={"backend": "serial"},
        results=results,
    )


def test_an_own_algorithm_that_was_edited_is_refused_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = of_own(tmp_path / "results")
    broken_off(experiment, after=1)
    sys.modules.pop("own_fedavg")
    (tmp_path / "own_fedavg.py").write_text(OWN.replace("1.0", "3.0"))
    assert main(["resume", experiment.run_id]) == 2
    error = capsys.readouterr().err
    assert "must go on with the software that it began with, got source of own_fedavg" in error
    assert main(["resume", experiment.run_id, "--force"]) == 0


def test_a_logger_decides_no_number(tmp_path: Path) -> None:
    experiment = of_own(tmp_path / "results")
    broken_off(experiment, after=1)
    (tmp_path / "own_logger.py").write_text(LOGGER + "# repaired")
    assert resume(tmp_path / "results", experiment.run_id).status == "finished"


def test_the_digest_is_of_every_file_of_the_package(tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(plugins.PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    recorded = software(of_own(tmp_path))["source of spatl_ray"]
    assert digest_of(copied) == recorded
    seen = {recorded}
    for name in ("wire/codec.py", "selection/agent.safetensors"):
        with (copied / name).open("ab") as file:
            file.write(b"#")
        digest_of.cache_clear()
        seen.add(digest_of(copied))
    assert len(seen) == 3


def of_agent(weights: str) -> Experiment:
    agent = {"episodes": 1, "participations": 1, "weights": weights}
    return small(
        Path("results"),
        {"name": "spatl", "agent": agent},
        rounds=2,
        clients=4,
        sample_ratio=0.25,
        evaluation={"panel": 1, "global_samples": 10},
        checkpoints={"seconds": 0.0},
        engine={"backend": "serial"},
    )


def shipped(file: Path) -> None:
    shutil.copy(plugins.PACKAGE / "selection" / "agent.safetensors", file)


def test_an_agent_that_was_replaced_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "agent.safetensors"
    shipped(file)
    experiment = of_agent("agent.safetensors")
    run_id = experiment.run_id
    broken_off(experiment, after=0)
    with safe_open(file, "np") as read:
        tensors = {name: -read.get_tensor(name) for name in read.keys()}  # noqa: SIM118
        metadata = read.metadata()
    save_file(tensors, file, metadata)
    with pytest.raises(ResultsError, match="a file that it names has changed"):
        resume(tmp_path / "results", run_id)
    shipped(file)
    assert resume(tmp_path / "results", run_id).status == "finished"


def test_the_run_id_is_of_an_agents_contents_not_of_its_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shipped(tmp_path / name)
    one, two = of_agent("one").run_id, of_agent("two").run_id
    assert one == two
    (tmp_path / "two").write_bytes(b"other")
    assert of_agent("two").run_id != one
    with pytest.raises(ConfigError, match=r"algorithm\.agent\.weights must be a readable file"):
        _ = of_agent("nowhere").run_id


def test_the_run_id_of_the_shipped_agent_stays() -> None:
    split = {"train": 0.8, "validation": 0.1, "test": 0.1}
    algorithm = {"name": "spatl", "agent": {}}
    experiment = Experiment.model_validate({"data": {"split": split}, "algorithm": algorithm})
    assert experiment.run_id == "experiment-spatl-s0-1b1a401e"


def test_a_finished_run_recorded_its_software(tmp_path: Path) -> None:
    experiment = of_own(tmp_path / "results")
    run(experiment)
    found = json.loads(pd.read_parquet(tmp_path / "results" / "runs")["versions"].iloc[0])
    assert found == software(experiment)
    assert {"source of spatl_ray", "source of own_fedavg", "torch"} <= found.keys()
    assert "source of own_logger" not in found
