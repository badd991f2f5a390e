"""What a run that goes on reads of itself is refused by field, value and rule where it is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken_off import broken_off, experiment_of

from spatl_ray import resume
from spatl_ray.cli import main
from spatl_ray.config import Experiment
from spatl_ray.engine.checkpoint import Checkpoints
from spatl_ray.engine.folders import checkpoint_folder
from spatl_ray.errors import ResultsError, StateError

pytestmark = pytest.mark.integration

Facts = dict[str, Any]

MLP = {"name": "mlp", "options": {"hidden": [8]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A run that was broken off; no test lets it go on."""
    experiment = experiment_of(tmp_path_factory.mktemp("run"), "scaffold", model=MLP)
    broken_off(experiment, after=3)
    return experiment


def rewritten(run: Experiment, column: str, change: Callable[[str], str | None]) -> None:
    """One column of the run's row of table `runs`."""
    (path,) = (Path(run.results.folder) / "runs").rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    index = table.schema.get_field_index(column)
    new = pa.array([change(table[column][0].as_py())], pa.string())
    field = table.schema.field(index).with_nullable(True)
    pq.write_table(table.set_column(index, field, new), path)


@pytest.mark.parametrize(
    ("column", "change", "rule"),
    [
        ("config", lambda text: text[:-1], 'must hold a JSON mapping, got \'{"name"'),
        ("config", lambda text: "[1]", r"must hold a JSON mapping, got '[1]': it is damaged"),
        ("config", lambda text: None, "must hold a JSON mapping, got None"),
        (
            "config",
            lambda text: json.dumps(json.loads(text) | {"newer": 1}),
            "must be an experiment of this version, got newer is no field of an experiment",
        ),
        (
            "config",
            lambda text: json.dumps(json.loads(text) | {"clients": -1}),
            "must be an experiment of this version, got clients must be at least 1, got -1",
        ),
        ("versions", lambda text: "{", "must hold a JSON mapping, got '{'"),
        ("status", lambda text: None, "must hold text, got None"),
        ("data_fingerprint", lambda text: None, "must hold text, got None"),
    ],
)
def test_a_damaged_row_is_named(
    run: Experiment,
    capsys: pytest.CaptureFixture[str],
    column: str,
    change: Callable[[str], str | None],
    rule: str,
) -> None:
    before: list[str] = []
    run_id, folder = run.run_id, run.results.folder
    rewritten(run, column, lambda text: before.append(text) or change(text))
    try:
        assert main(["resume", run_id, "--folder", folder]) == 2
    finally:
        rewritten(run, column, lambda text: before[0])
    error = capsys.readouterr().err
    assert f"error: column {column!r} of run {run_id!r} in table runs {rule}" in error


def without(facts: Facts, name: str) -> Facts:
    return {key: value for key, value in facts.items() if key != name}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda facts: without(facts, "ledger"), "ledger: Field required, got"),
        (lambda facts: without(facts, "run_id"), "run_id: Field required, got"),
        (lambda facts: facts | {"ledger": [1]}, r"ledger: Input should be .*, got \[1\]"),
        (
            lambda facts: facts | {"ledger": facts["ledger"] | {"bytes_up": "7"}},
            "ledger.bytes_up: Input should be a valid integer, got '7'",
        ),
        (
            lambda facts: facts | {"someone_trained": 1},
            "someone_trained: Input should be a valid boolean",
        ),
        (
            lambda facts: facts | {"lost": -1},
            "lost: Input should be greater than or equal to 0, got -1",
        ),
        (
            lambda facts: facts | {"rows": [1]},
            r"rows: Input should be a valid dictionary, got \[1\]",
        ),
        (
            lambda facts: facts | {"state_folders": "x"},
            "state_folders: Input should be a valid list",
        ),
    ],
)
def test_a_checkpoint_with_other_facts_is_named(
    run: Experiment, change: Callable[[Facts], Facts], rule: str
) -> None:
    """Its checksum is right: another version, or somebody, wrote it."""
    files = Checkpoints(checkpoint_folder(run), 2)
    newest, _ = files.newest()
    assert newest is not None
    path = Path(checkpoint_folder(run)) / f"round-{newest.round:06d}.ckpt"
    path.write_bytes(replace(newest, facts=change(dict(newest.facts))).to_bytes())
    try:
        with pytest.raises(
            StateError,
            match=rf"{path} must hold the facts of a checkpoint of this version, got {rule}",
        ):
            resume(Path(run.results.folder), run.run_id)
    finally:
        path.write_bytes(newest.to_bytes())


def test_rows_of_an_unknown_table_are_missed(run: Experiment) -> None:
    files = Checkpoints(checkpoint_folder(run), 2)
    newest, _ = files.newest()
    assert newest is not None
    path = Path(checkpoint_folder(run)) / f"round-{newest.round:06d}.ckpt"
    path.write_bytes(replace(newest, facts={**newest.facts, "rows": {"unknown": 5}}).to_bytes())
    try:
        with pytest.raises(ResultsError, match=r"unknown must hold the 5 rows .* got 0"):
            resume(Path(run.results.folder), run.run_id)
    finally:
        path.write_bytes(newest.to_bytes())


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda arrays: {}, "an array '.*' of float32, got none"),
        (
            lambda arrays: {name: array.astype("f8") for name, array in arrays.items()},
            "an array '.*' of float32, got float64",
        ),
    ],
)
def test_a_checkpoint_with_other_arrays_is_refused(
    tmp_path: Path, change: Callable[[Facts], Facts], rule: str
) -> None:
    experiment = experiment_of(tmp_path, "fedavg", model=MLP)
    broken_off(experiment, after=3)
    files = Checkpoints(checkpoint_folder(experiment), 1)
    newest, _ = files.newest()
    assert newest is not None
    files.save(replace(newest, server=change(dict(newest.server))))
    assert files.rounds() == [newest.round]  # no other one to go back to
    with pytest.raises(StateError, match=rf"the server must go on with {rule}"):
        resume(tmp_path, experiment.run_id)


def test_a_table_without_its_row_is_named(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path, "fedavg", model=MLP)
    broken_off(experiment, after=1)
    (path,) = (tmp_path / "runs").rglob("*.parquet")
    pq.write_table(pq.read_table(path, partitioning=None).slice(0, 0), path)
    with pytest.raises(ResultsError, match=r"parquet must hold the row of run .*, got none"):
        resume(tmp_path, experiment.run_id)


def test_an_address_is_for_runs_through_ray(
    run: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--folder", run.results.folder, "--address", "10.0.0.1:6379"]
    assert main(["resume", run.run_id, *where]) == 2
    assert (
        "error: --address must be left out for a run with engine.backend 'serial', got '10.0.0.1:6379'"
        in capsys.readouterr().err
    )
