"""Own parts of an experiment lie in the current folder, which hides nothing that is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spatl_ray import cli
from tune import search, sweep

GRID = "name: small\nexperiment: demo\nfixed: {data: %s, model: mlp, rounds: 1}\ngrid: {seed: [0, 1]}\n"
LOADER = """
from spatl_ray.errors import DataError


def load():
    raise DataError("this is the {whose} one")
"""
COMMANDS = {
    "validate": (cli.main, ["validate", "demo", "data={name}:load"]),
    "search": (search.main, ["demo", "model=mlp", "algorithm=fedavg", "data={name}:load"]),
    "sweep": (sweep.main, ["grid.yaml", "--dry-run"]),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A current folder, and one of what is installed; both have a module `shared_name`."""
    here, installed = tmp_path / "here", tmp_path / "installed"
    for folder, whose in ((here, "own"), (installed, "installed")):
        folder.mkdir()
        (folder / "shared_name.py").write_text(LOADER.format(whose=whose))
    (here / "own_name.py").write_text(LOADER.format(whose="own"))
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed)])
    yield
    for name in ("shared_name", "own_name"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("name", "whose"), [("own_name", "own"), ("shared_name", "installed")])
def test_what_is_installed_comes_first(
    capsys: pytest.CaptureFixture[str], command: str, name: str, whose: str
) -> None:
    main: Callable[[list[str]], int]
    main, arguments = COMMANDS[command]
    Path("grid.yaml").write_text(GRID % f"{name}:load")
    assert main([each.format(name=name) for each in arguments]) == 2
    assert f"error: this is the {whose} one" in capsys.readouterr().err


def test_an_installed_module_that_hides_an_own_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("shared_name.py").write_text("def mine(): ...")
    assert cli.main(["validate", "demo", "data=shared_name:mine"]) == 2
    file = tmp_path / "installed" / "shared_name.py"
    assert f"; shared_name was imported from {file}\n" in capsys.readouterr().err
