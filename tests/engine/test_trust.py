"""A results folder from somebody else names code; only that of the current folder is run unasked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken_off import broken_off, experiment_of
from own_modules import modules_in

from spatl_ray.cli import main
from spatl_ray.config import Experiment
from spatl_ray.plugins import lies_in, named_in

pytestmark = pytest.mark.integration

OWN = """
import os
from functools import partial
from os import system
from pathlib import Path

from sklearn.datasets import load_digits

from spatl_ray import Dataset

Path("imported").touch()


def load():
    x, y = load_digits(return_X_y=True)
    return Dataset.from_arrays("own", x[200:], y[200:], x[:200], y[:200])


class Tools:
    run = system


call = partial(system)
"""
LOGGER = """
from pathlib import Path

from spatl_ray import Callback

Path("called").touch()


class Logger(Callback):
    def __init__(self, experiment): ...
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with modules_in(tmp_path, monkeypatch, own_digits=OWN):
        yield


def tampered(folder: Path, **fields: Any) -> str:
    """A run that was broken off, whose config somebody has changed, with its id; the new id."""
    experiment = experiment_of(folder, "fedavg", model={"name": "mlp", "options": {"hidden": [8]}})
    broken_off(experiment, after=2)
    (path,) = (folder / "runs").rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    config = json.dumps(json.loads(table["config"][0].as_py()) | fields)
    index = table.schema.get_field_index("config")
    column = pa.array([config])
    pq.write_table(table.set_column(index, table.schema.field(index), column), path)
    run_id = Experiment.model_validate_json(config).run_id
    path.parent.rename(path.parent.with_name(f"run_id={run_id}"))
    return run_id


@pytest.mark.parametrize("command", ["resume", "export"])
def test_results_cannot_call_what_is_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    call = {"name": "os:system", "options": {"command": "touch called"}}
    run_id = tampered(tmp_path / "results", data=call)
    more = ["--client", "0"] if command == "export" else []
    assert main([command, run_id, *more]) == 2
    error = capsys.readouterr().err
    assert f"data.name of run {run_id!r} must name a module of the current folder" in error
    assert "got 'os:system'" in error
    assert not (tmp_path / "called").exists()
    main([command, run_id, *more, "--trust"])
    assert "runs own code, named by the run's data.name: os:system" in capsys.readouterr().err
    # A run that did not finish is not exported at all.
    assert (tmp_path / "called").exists() == (command == "resume")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("own_digits:os.system", "defines itself"),
        ("own_digits:system", "defines itself"),
        ("own_digits:Tools.run", "defines itself"),
        ("own_digits:call", "defines itself"),
        ("own_digits:Path", "defines itself"),
        ("spatl_ray.cli:os.system", "outside the results folder"),
    ],
)
def test_results_cannot_reach_through_a_module_of_the_current_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, rule: str
) -> None:
    """Also where that is a checkout, so that this package lies in it."""
    if name.startswith("spatl_ray"):
        os.chdir(Path(__file__).parents[2])
    called = {"name": name, "options": {"command": f"touch {tmp_path / 'called'}"}}
    run_id = tampered(tmp_path / "results", data=called)
    assert main(["resume", run_id, "--folder", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err
    assert f"data.name of run {run_id!r} must name " in error
    assert rule in error
    assert f"got {name!r}" in error
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("package", [False, True])
def test_the_received_folder_is_no_package_of_the_current_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], package: bool
) -> None:
    """Loggers are no part of the run id: anybody can name one."""
    results = {"folder": "results", "loggers": ["results.evil:Logger"]}
    run_id = tampered(tmp_path / "results", results=results)
    (tmp_path / "results" / "evil.py").write_text(LOGGER)
    if package:
        (tmp_path / "results" / "__init__.py").touch()
    assert main(["resume", run_id]) == 2
    assert "must name a module of the current folder, outside the" in capsys.readouterr().err
    assert not (tmp_path / "called").exists()


def test_own_code_of_the_current_folder_is_told_and_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = experiment_of(
        tmp_path / "results",
        "fedavg",
        data={"name": "own_digits:load"},
        model={"name": "mlp", "options": {"hidden": [8]}},
    )
    broken_off(experiment, after=3)
    assert (tmp_path / "imported").exists()
    assert main(["resume", experiment.run_id]) == 0
    assert "runs own code, named by the run's data.name: own_digits:load" in capsys.readouterr().err


def test_names_are_found_wherever_they_stand() -> None:
    config = {
        "name": "plain",
        "data": {"name": "a:f", "options": {"x": 1.5, "y": None, "z": "s3://bucket/x"}},
        "engine": {"address": "10.0.0.1:6379"},
        "results": {"loggers": ["tensorboard", "b.c:D"], "folder": "/here"},
    }
    assert list(named_in(config)) == [("data.name", "a:f"), ("results.loggers[1]", "b.c:D")]


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("own_digits:load", True),
        ("own_digits.load:x", False),
        ("package.deep:f", True),
        ("package.none:f", False),
        ("package.received.evil:f", False),
        ("plain.deep:f", False),
        ("linked:f", False),
        ("os:system", False),
        ("sys:exit", False),
        ("json:loads", False),
        ("torch.hub:load", False),
        ("numpy:load", False),
        ("tests:f", False),
        ("nowhere:f", False),
    ],
)
def test_a_module_is_looked_for_and_not_imported(tmp_path: Path, name: str, inside: bool) -> None:
    """A file of the folder that the standard library or an installed package hides is not what would run."""
    received = tmp_path / "package" / "received"
    for folder in (tmp_path / "package", tmp_path / "plain", received):
        folder.mkdir()
        (folder / "deep.py").write_text("raise AssertionError")
    (tmp_path / "package" / "__init__.py").write_text("raise AssertionError")
    for file in ("json.py", "numpy.py", "tests.py"):
        (tmp_path / file).touch()
    for file in ("__init__.py", "evil.py"):
        (received / file).touch()
    (tmp_path / "linked.py").symlink_to(received / "evil.py")
    assert lies_in(name, tmp_path, received) == inside
    assert not (tmp_path / "imported").exists()
