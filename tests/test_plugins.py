"""Own parts that raise: the command line names each and its line, and shows no traceback."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as parquet
import pytest

from spatl_ray import plugins
from spatl_ray.cli import main
from spatl_ray.errors import DataError, PluginError, SpatlError

OWN = """\
import numpy as np
from spatl_ray import Callback
from spatl_ray.federation.sampler import Sampler


def fail(*arguments, **options):
    return [][7]  # LINE


def deal(labels, features, groups, clients, generator):
    return fail()


class Logger(Callback):
    def __init__(self, experiment): ...

    def round_ended(self, row):
        fail()


class Drawn(Sampler):
    def __init__(self, options): ...

    def cohort(self, draw):
        fail()


def load():
    return fail()


class Algorithm:
    def __init__(self, options):
        fail()
"""
LINE = 1 + OWN.partition("# LINE")[0].count("\n")
SMALL = ("model=mlp", "engine.backend=serial", "clients=4", "rounds=3")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_parts.py").write_text(OWN)
    (tmp_path / "half_written.py").write_text("import os\nx = 1 / 0\n")
    yield
    for name in ("own_parts", "half_written"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("partition=own_parts:deal", "partition.name 'own_parts:deal' raised, at"),
        ("data=own_parts:load", "data.name 'own_parts:load' raised, at"),
        ("sampler=own_parts:Drawn", "sampler.name 'own_parts:Drawn' raised in cohort, at"),
        ("results.loggers=[own_parts:Logger]", "'own_parts:Logger' raised in round_ended, at"),
        ("algorithm=own_parts:Algorithm", "algorithm.name 'own_parts:Algorithm' raised, at"),
    ],
)
def test_one_that_raises_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, named: str
) -> None:
    assert main(["run", "demo", *SMALL, override]) == 2
    err = capsys.readouterr().err
    place = f"{tmp_path / 'own_parts.py'}:{LINE}"
    assert f"{named} {place}: IndexError: list index out of range\n" in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_module_that_cannot_be_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "demo", "partition=half_written:deal"]) == 2
    err = capsys.readouterr().err
    assert "partition.name 'half_written:deal' raised when it was imported, at " in err
    assert err.endswith("half_written.py:2: ZeroDivisionError: division by zero\n")


def test_the_results_of_a_run_whose_logger_raised_are_readable() -> None:
    assert main(["run", "demo", *SMALL, "results.loggers=[own_parts:Logger]"]) == 2
    (row,) = parquet.dataset("results/runs", partitioning="hive").to_table().to_pylist()
    assert row["status"] == "failed"
    assert row["error"].startswith("PluginError: results.loggers 'own_parts:Logger' raised in ")
    assert parquet.dataset("results/rounds", partitioning="hive").count_rows() == 1


def raised(error: BaseException, **options: Any) -> BaseException:
    with pytest.raises(type(error) if options else SpatlError) as caught:  # noqa: SIM117
        with plugins.blamed("model.name", "mine:Net", **options):
            raise error
    return caught.value


def test_the_cause_is_kept_and_the_error_travels() -> None:
    fault = KeyError("width")
    error = raised(fault)
    assert error.__cause__ is fault
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("make", [DataError, PluginError])
def test_an_error_of_this_package_goes_through(make: Callable[[str], SpatlError]) -> None:
    fault = make("on purpose")
    assert raised(fault) is fault


def test_what_is_let_through_goes_through() -> None:
    fault = OSError("disk")
    assert raised(fault, passed=(OSError,)) is fault


def test_an_interrupt_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt), plugins.blamed("model.name", "mine:Net"):
        raise KeyboardInterrupt
