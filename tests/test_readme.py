"""The README's examples, pasted as they are."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from spatl_ray.cli import main

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
FILE = re.compile(r"```python\n# (\w+)\.py\n(.*?)```\n\n```\n(spatl .*?)\n```", re.DOTALL)
EXAMPLES = {name: (code, commands) for name, code, commands in FILE.findall(TEXT)}
"""Module name -> its code, and the commands below it."""


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


def test_the_shown_experiment_is_valid(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All YAML that the README shows makes one experiment."""
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    (here / "mine.yaml").write_text("".join(blocks).replace("fashion_mnist", "digits"))
    assert main(["validate", "mine.yaml", "partition.min_size=1"]) == 0, capsys.readouterr().err
