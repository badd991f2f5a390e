"""Files of data sets: where they are looked for, and what is said if they lack."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatl_ray.data import files
from spatl_ray.data.files import Files

TWO = Files(
    "two",
    (("a", "a.gz"), ("b/*.json",)),
    ("", "sub"),
    "two files",
    cure="`make two`",
    torchvision="Two",
    calls=({"split": "x"}, {"split": "y"}),
    system="two",
)


def make(folder: Path, *names: str) -> Path:
    """A folder with empty files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_an_explicit_root_is_the_only_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATL_DATA", "elsewhere")
    assert TWO.places("mine") == (Path("mine"), Path("mine/sub"))


def test_places_come_in_the_documented_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATL_DATA", "own")
    usual = (Path("data"), Path("data/sub"), files.SYSTEM_FOLDER / "two")
    assert TWO.places(None) == (Path("own"), Path("own/sub"), *usual)
    monkeypatch.delenv("SPATL_DATA")
    assert TWO.places(None) == usual


@pytest.mark.parametrize("plain", ["a", "a.gz"])
def test_any_of_a_files_names_will_do(tmp_path: Path, plain: str) -> None:
    assert TWO.lacking(make(tmp_path, plain, "b/any.json")) == []


def test_a_folder_that_lacks_a_file_is_passed_over(tmp_path: Path) -> None:
    partial, whole = make(tmp_path / "1", "a.gz", "b/no"), make(tmp_path / "2", "a", "b/c.json")
    assert TWO.lacking(partial) == ["b/*.json"]
    assert TWO.find([tmp_path / "none", partial, whole]) == whole
    assert TWO.find([partial]) is None


def test_a_folder_with_the_name_of_a_file_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert TWO.lacking(make(tmp_path, "b/c.json")) == ["a"]


def test_not_found_lists_every_place_and_the_cures(tmp_path: Path) -> None:
    there = make(tmp_path / "there", "a")
    message = str(TWO.not_found([there, tmp_path / "none"], also="the download failed"))
    assert message.splitlines() == [
        "two needs its two files, found in none of:",
        f"  {there}: lacks b/*.json",
        f"  {tmp_path / 'none'}: no such folder",
        "the download failed",
        "get them with `make two`, or with `torchvision.datasets.Two(FOLDER, split='x', "
        "download=True)` and `torchvision.datasets.Two(FOLDER, split='y', download=True)` and "
        "data.root=FOLDER (or SPATL_DATA=FOLDER in the environment)",
    ]
