"""Files appear whole or not at all; bad places are known before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spatl_ray.errors import ConfigError
from spatl_ray.places import check_place, write_whole


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for data in (b"first", b"second"):
        write_whole(path, data)
        assert path.read_bytes() == data
    assert os.listdir(path.parent) == ["file"]


def test_others_may_read_it_as_any_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"")
    (tmp_path / "plain").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_whole(tmp_path / "folder", b"data")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_place_that_can_be_written_stays_as_it_is(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "newer" / "file", "--out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["file/below", "file/far/below", "a" * 300])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^--out must be a place that can be written, got '/"):
        check_place(tmp_path / place, "--out")
    assert os.listdir(tmp_path) == ["file"]
