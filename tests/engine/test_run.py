"""`run` from outside: what it leaves, when it is stopped, refused or repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_runs import images, ran, same_bits, saved, server_file, small, table

import spatl_ray
from spatl_ray import run
from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment
from spatl_ray.data.memory import with_memory
from spatl_ray.engine.prepare import prepare
from spatl_ray.errors import ConfigError, ResultsError
from spatl_ray.experiments import experiment_from
from spatl_ray.results.schema import unmeasured

pytestmark = pytest.mark.integration

Row = Mapping[str, object]


class Witness(Callback):
    """Notes what a run tells, and presses Ctrl-C at one moment."""

    def __init__(self, stop: tuple[str, int] | None = None) -> None:
        self.stop = stop
        self.told: list[tuple[str, object]] = []

    def _tell(self, what: str, round_: int, value: object) -> None:
        self.told.append((what, value))
        if self.stop == (what, round_):
            raise KeyboardInterrupt

    def run_started(self, experiment: Experiment, run_id: str) -> None:
        self._tell("started", 0, run_id)

    def clients_done(self, round_: int, done: int, cohort: int) -> None:
        self._tell("done", round_, (done, cohort))

    def round_ended(self, row: Row) -> None:
        self._tell("ended", int(str(row["round"])), row["round"])

    def event(self, row: Row) -> None:
        self._tell("event", int(str(row["round"])), row["client"])

    def run_ended(self, status: str) -> None:
        self._tell("over", 0, status)


def assert_same_rows(first: pd.DataFrame, second: pd.DataFrame, name: str) -> None:
    """Two tables agree in every column that is not measured."""
    columns = unmeasured(name)
    one, other = (frame[columns].reset_index(drop=True) for frame in (first, second))
    pd.testing.assert_frame_equal(one, other, check_exact=True, check_dtype=False)


def test_a_run_leaves_tables_a_model_and_a_summary(tmp_path: Path) -> None:
    experiment = small(tmp_path, "spatl")
    summary = run(experiment)
    assert (summary.run_id, summary.folder) == (experiment.run_id, tmp_path)
    assert summary.status == "finished"
    rounds = table(tmp_path, "rounds")
    last = rounds.iloc[-1]
    assert len(rounds) == 3
    for column, value in summary.last_round.items():
        assert last[column] == value or (value is None and pd.isna(last[column])), column
    assert len(table(tmp_path, "clients")) == 18
    assert server_file(experiment).exists()


def test_the_same_experiment_gives_the_same_bits(tmp_path: Path) -> None:
    first, second = (small(tmp_path / name, "spatl", sample_ratio=0.5) for name in "ab")
    run(first)
    run(second)
    assert same_bits(saved(first), saved(second))
    for name in ("runs", "rounds", "clients", "layers"):
        rows = (table(Path(each.results.folder), name) for each in (first, second))
        assert_same_rows(*rows, name)
    other = small(tmp_path / "c", "spatl", sample_ratio=0.5, seed=1)
    run(other)
    assert not same_bits(saved(first), saved(other))


def test_the_public_names_are_there() -> None:
    for name in spatl_ray.__all__:
        assert getattr(spatl_ray, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        spatl_ray.nothing  # noqa: B018


def test_callbacks_hear_everything_in_order(tmp_path: Path) -> None:
    witness = Witness()
    algorithm = {"name": "sketches:Saboteur", "options": {"2": "nan"}}
    experiment = small(tmp_path, algorithm, rounds=2)
    run(experiment, callbacks=[witness])
    round_of = [("done", (6, 6)), ("event", 2)]
    assert witness.told == [
        ("started", experiment.run_id),
        *round_of, ("ended", 0),
        *round_of, ("ended", 1),
        ("over", "finished"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("moment", "rounds"), [(("done", 1), 1), (("ended", 1), 2), (("done", 0), 0)]
)
def test_ctrl_c_leaves_the_finished_rounds(
    tmp_path: Path, moment: tuple[str, int], rounds: int
) -> None:
    witness = Witness(stop=moment)
    experiment = small(tmp_path, "scaffold")
    summary = run(experiment, callbacks=[witness])
    assert summary.status == "interrupted"
    assert witness.told[-1] == ("over", "interrupted")
    (row,) = table(tmp_path, "runs").to_dict("records")
    assert row["status"] == "interrupted"
    assert pd.isna(row["error"])
    assert row["end"] >= row["start"]
    assert not server_file(experiment).exists()
    if rounds:
        whole = small(tmp_path / "whole", "scaffold")
        run(whole)
        for name in ("rounds", "clients"):
            got, full = table(tmp_path, name), table(tmp_path / "whole", name)
            assert_same_rows(got, full[full["round"] < rounds], name)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_existing_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    experiment = small(tmp_path, "spatl")
    run(experiment)
    before = snapshot(tmp_path)
    reason = rf"run '{experiment.run_id}' is already in .*: take results.overwrite=true"
    with pytest.raises(ResultsError, match=reason):
        run(experiment)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("stop", [None, ("done", 1)])
def test_overwriting_replaces_the_run_and_no_other(
    tmp_path: Path, stop: tuple[str, int] | None
) -> None:
    """Whether the old run finished or was interrupted, the new one is as if it were the first."""
    other, experiment = small(tmp_path, "fedavg"), small(tmp_path, "spatl")
    run(other)
    kept = snapshot(tmp_path)
    run(experiment, callbacks=[] if stop is None else [Witness(stop)])
    again = small(tmp_path, "spatl", results={"folder": str(tmp_path), "overwrite": True})
    assert again.run_id == experiment.run_id
    run(again)
    fresh = small(tmp_path / "fresh", "spatl")
    run(fresh)
    assert same_bits(saved(again), saved(fresh))
    for name in ("rounds", "clients", "layers"):
        mine = table(tmp_path, name).query("run_id == @again.run_id")
        assert_same_rows(mine, table(tmp_path / "fresh", name), name)
    now = snapshot(tmp_path)
    assert {name: now[name] for name in kept} == kept


def test_overwriting_starts_from_fresh_client_states(tmp_path: Path) -> None:
    """Local-only keeps all it learns in client states: the second run must not go on from the first."""
    first = small(tmp_path, "local_only")
    run(first)
    once = table(tmp_path, "rounds")
    run(small(tmp_path, "local_only", results={"folder": str(tmp_path), "overwrite": True}))
    assert_same_rows(once, table(tmp_path, "rounds"), "rounds")


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.write_text("mine", encoding="utf-8")
    for folder in (path, path / "deeper"):
        with pytest.raises(ResultsError, match=r"results\.folder must be a folder that can be"):
            run(small(folder))
    assert snapshot(tmp_path) == {"taken": b"mine"}


def test_data_in_memory(tmp_path: Path) -> None:
    """Its shape and classes decide the model; the config's data set is not read."""
    data = {"name": "fashion_mnist", "root": str(tmp_path / "nowhere")}
    experiment = small(tmp_path / "results", data=data)
    dataset = images(6)
    _, backend = ran(experiment, dataset=dataset)
    assert backend.arrays()["model"].size == 36 * 16 + 16 + 16 * 4 + 4
    assert table(tmp_path / "results", "clients")["samples"].tolist() == [32] * 18
    (row,) = table(tmp_path / "results", "runs").to_dict("records")
    assert row["dataset"] == "noise"
    assert row["run_id"] == with_memory(experiment, dataset).run_id != experiment.run_id
    recorded = json.loads(row["config"])["data"]
    assert (recorded["name"], recorded["root"]) == ("memory", None)
    assert recorded["options"] == {"name": "noise", "fingerprint": dataset.fingerprint}
    assert row["data_fingerprint"] == backend.worker.population.data.fingerprint
    again = small(tmp_path / "again", data=data)
    run(again, dataset=dataset)  # with the backend that it makes itself
    assert same_bits(saved(with_memory(again, dataset)), saved(with_memory(experiment, dataset)))


def test_arrays_alone_are_no_data_set(tmp_path: Path) -> None:
    arrays = (np.zeros((20, 4), np.float32), np.zeros(20, np.int64))
    with pytest.raises(ConfigError, match=r"^dataset must be a spatl_ray\.Dataset.* type tuple$"):
        run(small(tmp_path), dataset=arrays)
    assert list(tmp_path.iterdir()) == []


def test_runs_of_different_data_in_memory_stand_side_by_side(tmp_path: Path) -> None:
    first = images(6)
    other = replace(first, train_x=first.train_x + np.float32(1))
    summaries = [run(small(tmp_path, rounds=1), dataset=data) for data in (first, other)]
    assert summaries[0].run_id != summaries[1].run_id
    assert set(table(tmp_path, "runs")["run_id"]) == {each.run_id for each in summaries}


def test_a_recorded_run_of_data_in_memory_runs_again_on_the_same(tmp_path: Path) -> None:
    dataset = images(6)
    summary = run(small(tmp_path, rounds=1), dataset=dataset)
    (row,) = table(tmp_path, "runs").to_dict("records")
    recorded = json.loads(row["config"])
    with pytest.raises(
        ConfigError, match=r"data\.name must name data that can be loaded, .*'memory'"
    ):
        prepare(experiment_from(recorded))
    recorded["results"]["overwrite"] = True
    assert run(experiment_from(recorded), dataset=dataset).run_id == summary.run_id


def test_a_run_imports_what_it_needs_only(tmp_path: Path) -> None:
    """torch's compiler and scikit-learn take over a second each, torchvision up to ten."""
    code = (
        "import sys; from spatl_ray import load_experiment, run\n"
        "fields = ['clients=3', 'rounds=1', 'data.samples=100', 'engine.backend=serial']\n"
        f"run(load_experiment('demo', [*fields, {f'results.folder={tmp_path}'!r}]))\n"
        "print({'torch._dynamo', 'torchvision', 'sklearn', 'ray'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
