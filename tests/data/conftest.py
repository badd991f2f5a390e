"""Where tests of data files begin: with no data in any usual place, and a server to download from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mirrors import Mirror, serving

from spatl_ray.data import files


@pytest.fixture
def no_other_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without data, no system folder, no SPATL_DATA."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("SPATL_DATA", raising=False)
    monkeypatch.setattr(files, "SYSTEM_FOLDER", empty / "system")
    return empty


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server for torchvision's downloads, at first with an empty folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(folder) as served:
        yield served
