"""The results folder, or a part of it, is removed while a run goes on: a clear end, and no half results."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from broken_off import Watch, broken_off, experiment_of

from spatl_ray import resume, run
from spatl_ray.callbacks import Row
from spatl_ray.cli import main
from spatl_ray.config import Experiment
from spatl_ray.engine.checkpoint import Checkpoints
from spatl_ray.engine.folders import checkpoint_folder
from spatl_ray.errors import ResultsError, SpatlError, StateError

pytestmark = pytest.mark.integration


class Remove(Watch):
    """Removes a folder after a round."""

    def __init__(self, folder: Path, round_: int = 1) -> None:
        super().__init__()
        self._folder, self._round = folder, round_
        self.status = ""

    def round_ended(self, row: Row) -> None:
        super().round_ended(row)
        if row["round"] == self._round:
            shutil.rmtree(self._folder)

    def run_ended(self, status: str) -> None:
        self.status = status


SMALL: dict[str, Any] = {"model": {"name": "mlp", "options": {"hidden": [8]}}}


def at_once(folder: Path, name: str, **fields: Any) -> Experiment:
    """Rows are written after each round."""
    results = {"folder": str(folder), "flush_seconds": 0}
    return experiment_of(folder, name, results=results, **SMALL, **fields)


@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
@pytest.mark.parametrize("every", [0, 1])
def test_without_the_folder_the_run_ends(tmp_path: Path, name: str, every: int) -> None:
    """FedAvg keeps no client states, SCAFFOLD does; with checkpoints the error comes with the next one."""
    folder = tmp_path / "results"
    experiment = at_once(folder, name, checkpoints={"every": every})
    watch = Remove(folder)
    with pytest.raises(ResultsError, match="must stay in") as caught:
        run(experiment, callbacks=[watch])
    assert f"got no {folder}" in str(caught.value)
    assert watch.status == "failed"
    assert watch.rounds[-1] <= 2, "one more round at most"
    assert not list(folder.rglob("*.parquet"))
    assert not list(folder.rglob("*.safetensors"))
    if name == "fedavg":
        assert not folder.exists()


def test_rows_that_wait_for_the_end_do_not_hide_it(tmp_path: Path) -> None:
    """Nothing is written before the last round: the run ends as failed, without a model."""
    folder = tmp_path / "results"
    watch = Remove(folder)
    with pytest.raises(ResultsError, match=f"got no {folder} any more"):
        run(experiment_of(folder, "fedavg", checkpoints={"every": 0}, **SMALL), callbacks=[watch])
    assert watch.status == "failed"
    assert not folder.exists()


@pytest.mark.parametrize("table", ["rounds", "clients"])
def test_without_a_table_the_run_ends_and_says_so(tmp_path: Path, table: str) -> None:
    experiment = at_once(tmp_path, "fedavg")
    with pytest.raises(ResultsError, match=f"got no {tmp_path / table} any more"):
        run(experiment, callbacks=[Remove(tmp_path / table)])
    (row,) = pd.read_parquet(tmp_path / "runs").to_dict("records")
    assert row["status"] == "failed"
    assert f"got no {tmp_path / table} any more" in row["error"]
    other = "clients" if table == "rounds" else "rounds"
    assert sorted(set(pd.read_parquet(tmp_path / other)["round"])) == [0]  # round 1's rows waited
    assert not (tmp_path / table).exists()


def test_without_clients_states_the_run_ends_and_says_so(tmp_path: Path) -> None:
    experiment = at_once(tmp_path, "scaffold", sample_ratio=1.0, engine={"state_cache": 0})
    with pytest.raises(StateError, match=r"states.*the state of client \d+"):
        run(experiment, callbacks=[Remove(tmp_path / "states")])
    assert pd.read_parquet(tmp_path / "runs")["status"].tolist() == ["failed"]
    assert pd.read_parquet(tmp_path / "rounds")["round"].tolist() == [0, 1]


def test_checkpoints_that_were_removed_are_taken_again(tmp_path: Path) -> None:
    """They are no results: the run goes on, and finishes."""
    experiment = at_once(tmp_path, "scaffold")
    watch = Remove(tmp_path / "checkpoints", round_=3)
    assert run(experiment, callbacks=[watch]).status == "finished"
    assert len(watch.rounds) == experiment.rounds


LOST: dict[str, tuple[str, type[SpatlError]]] = {
    ".": ("RUN must be a run in .*there are: none", ResultsError),
    "runs": ("runs must hold the row of run .*got none, but rows of it in rounds", ResultsError),
    "clients": (r"clients must hold the \d+ rows that run .*, got 0", ResultsError),
    "rounds": (
        r"rounds must hold the \d rows that run .* wrote before round \d, got 0",
        ResultsError,
    ),
    "states": (r"the state of client \d+ after round \d is lost", StateError),
}


@pytest.mark.parametrize("what", LOST)
def test_resume_says_what_is_missing(tmp_path: Path, what: str) -> None:
    """The checkpoints lie elsewhere, and are whole."""
    folder, place = tmp_path / "results", {"folder": str(tmp_path / "elsewhere")}
    experiment = at_once(folder, "scaffold", checkpoints=place)
    broken_off(experiment, after=4)
    assert Checkpoints(checkpoint_folder(experiment), 2).rounds() == [2, 3]
    shutil.rmtree(folder / what)
    before = sorted(folder.rglob("*.parquet"))
    rule, kind = LOST[what]
    with pytest.raises(kind, match=rule):
        resume(folder, experiment.run_id)
    assert sorted(folder.rglob("*.parquet")) == before
    assert Checkpoints(checkpoint_folder(experiment), 2).rounds() == [2, 3]


def test_rows_that_are_put_back_are_gone_on_from(tmp_path: Path) -> None:
    folder, place = tmp_path / "results", {"folder": str(tmp_path / "elsewhere")}
    experiment = at_once(folder, "scaffold", checkpoints=place)
    with pytest.raises(SpatlError):
        run(experiment, callbacks=[Moved(folder / "clients", tmp_path / "kept")])
    shutil.rmtree(folder / "clients", ignore_errors=True)
    shutil.move(tmp_path / "kept", folder / "clients")
    assert resume(folder, experiment.run_id).status == "finished"
    assert sorted(set(pd.read_parquet(folder / "clients")["round"])) == list(range(6))


class Moved(Remove):
    """Moves a folder away after a round."""

    def __init__(self, folder: Path, to: Path) -> None:
        super().__init__(folder)
        self._to = to

    def round_ended(self, row: Row) -> None:
        if row["round"] == self._round:
            shutil.move(self._folder, self._to)


def test_the_command_line_says_it_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "removes.py").write_text(
        "import shutil\n"
        "from spatl_ray import Callback\n\n\n"
        "class Removes(Callback):\n"
        "    def __init__(self, experiment): ...\n\n"
        "    def round_ended(self, row):\n"
        "        shutil.rmtree('results', ignore_errors=True)\n"
    )
    command = ["run", "demo", "model=mlp", "engine.backend=serial", "clients=4", "rounds=3"]
    command += ["algorithm=fedavg"]
    assert main([*command, "results.loggers=[removes:Removes]"]) == 2
    (line,) = (e for e in capsys.readouterr().err.splitlines() if e.startswith("error: "))
    assert f"got no {tmp_path / 'results'} any more" in line
    assert not (tmp_path / "results").exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
def test_through_ray_the_run_ends_too(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "results"
    experiment = at_once(folder, name, engine={"backend": "ray", "workers": 2})
    watch = Remove(folder)
    begun = time.monotonic()
    with pytest.raises(ResultsError, match=f"got no {folder}"):
        run(experiment, callbacks=[watch])
    assert time.monotonic() - begun < 60
    assert watch.rounds[-1] <= 2
    assert not list(folder.rglob("*.parquet"))
