"""Imports point one way: the contracts of pyproject.toml."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter.api import read_configuration
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]


def test_the_contracts_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    status = lint_imports(no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_a_contract_guards_each_rule() -> None:
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    assert {each["id"] for each in contracts} == {
        "layers",
        "ray",
        "results",
        "analysis",
        "tune",
        "public",
        "circles",
    }
