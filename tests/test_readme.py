"""The README's examples, pasted as they are."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import matplotlib.pyplot as plt
import numpy as np
import pytest

from spatl_ray import cli, load_experiment, run
from spatl_ray.cli import main

pytestmark = pytest.mark.integration

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
FILE = re.compile(r"```python\n# (\w+)\.py\n(.*?)```\n\n```\n(spatl .*?)\n```", re.DOTALL)
EXAMPLES = {name: (code, commands) for name, code, commands in FILE.findall(TEXT)}
"""Module name -> its code, and the commands below it."""

BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    """The code blocks in a language; those in none are commands."""
    return [text for each, text in BLOCKS if each == language]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, that leaves nothing behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    return tmp_path


def test_every_kind_of_plug_in_has_an_example() -> None:
    commands = " ".join(command for _, command in EXAMPLES.values())
    for field in (
        "algorithm=",
        "model=",
        "data=",
        "partition=",
        "algorithm.criterion=",
        "training.loss=",
        "sampler=",
        "results.loggers=",
    ):
        assert field in commands, field


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_own_part_works_as_pasted(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, commands = EXAMPLES[name]
    (here / f"{name}.py").write_text(code)
    try:
        for command in commands.splitlines():
            program, *arguments = shlex.split(command)
            assert program == "spatl"
            assert main(arguments) == 0, capsys.readouterr().err
    finally:
        sys.modules.pop(name, None)


def test_arrays_in_memory_run_as_pasted(here: Path) -> None:
    (code,) = re.findall(
        r"```python\n(import numpy as np\nimport spatl_ray\n.*?)```", TEXT, re.DOTALL
    )
    scope: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), scope)
    assert scope["summary"].status == "finished"  # type: ignore[attr-defined]


@pytest.mark.parametrize("experiment", blocks("yaml"))
def test_a_shown_experiment_is_valid_as_pasted(
    here: Path, capsys: pytest.CaptureFixture[str], experiment: str
) -> None:
    """With the trace file that is shown; digits stand for data that may not be here."""
    (trace,) = blocks("csv")
    (here / "devices.csv").write_text(trace)
    (here / "mine.yaml").write_text(experiment.replace("fashion_mnist", "digits"))
    assert main(["validate", "mine.yaml", "partition.min_size=1"]) == 0, capsys.readouterr().err


def commands(program: str) -> list[list[str]]:
    """The arguments of each call of a program in the code blocks; a loop over algorithms by its last."""
    lines = "".join(blocks("")).replace("\\\n", "").replace("$a", "spatl").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [arguments[1:] for arguments in split if arguments[:1] == [program]]


@pytest.mark.parametrize("arguments", commands("spatl"), ids=" ".join)
def test_every_command_names_what_exists(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """All fields, presets and kinds; whether it runs is another question."""
    known = Mock(return_value=0)
    for command in ("_run", "_resume", "_validate", "_partition", "_submit", "_list"):
        monkeypatch.setattr(cli, command, known)
    assert main(arguments) == 0
    if arguments[0] not in ("list", "resume"):
        (parsed,) = known.call_args.args
        load_experiment(parsed.source, parsed.overrides)


def test_what_is_plotted_was_written() -> None:
    """Each folder of results that a command reads is one that a command before it fills."""
    runs = [arguments for arguments in commands("spatl") if arguments[0] == "run"]
    written = {load_experiment(run[1], run[2:]).results.folder for run in runs}
    plotted = [folder for script, folder in commands("python") if script == "analysis/plots.py"]
    assert plotted
    assert set(plotted) <= written
    assert "results/demo" in TEXT
    assert "DEMO := results/demo\n" in (README.parent / "Makefile").read_text(encoding="utf-8")


def test_the_environment_is_entered_before_its_commands() -> None:
    assert TEXT.index("source .venv/bin/activate") < TEXT.index("\nspatl run")


def test_the_first_lines_of_python_run_as_pasted(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer rounds: a run, and what pandas and DuckDB make of its results."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    scope: dict[str, Any] = {}
    for code in blocks("python")[:4]:
        exec(compile(code.replace("rounds=5", "rounds=1"), str(README), "exec"), scope)
    assert scope["rounds"]["algorithm"].tolist() == ["spatl"]
    # Of methods whose bytes differ, too, each is a line without holes.
    other = ["rounds=3", "engine.backend=serial", "algorithm=fedavg", "model=mlp"]
    run(load_experiment("demo", other))
    run(load_experiment("demo", [*other, "algorithm=fedper"]))
    for code in blocks("python")[2:4]:
        plt.close("all")
        exec(compile(code, str(README), "exec"), scope)
        lines = [np.isfinite(line.get_ydata()).nonzero()[0] for line in plt.gca().get_lines()]
        assert len(lines) == 3
        assert all(len(known) == known[-1] - known[0] + 1 for known in lines)
    assert (here / "accuracy.png").stat().st_size > 5000
    assert (here / "accuracy_duckdb.png").stat().st_size > 5000
