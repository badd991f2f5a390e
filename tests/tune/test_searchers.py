"""Which trial gets which number, also where the book has a gap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trials import study_of

from tune.book import FAILED, Book, Entry
from tune.searchers import booked_searcher, drawn_points
from tune.study import Study

GRID = "training.lr: {choice: [0.01, 0.02, 0.03, 0.04]}"


def suggested(study: Study, book: Book, count: int, retries: bool = False) -> list[dict[str, Any]]:
    """The next points of a search that goes on."""
    searcher = booked_searcher(study, book, book.entries(), retries)
    points = []
    for number in range(count):
        config = searcher.suggest(f"tune{number}")
        assert config is not None
        points.append(config["point"])
    return points


def test_a_search_goes_on_with_the_same_numbers_and_points(tmp_path: Path) -> None:
    study, book = study_of(tmp_path), Book(tmp_path)
    first = suggested(study, book, 4)
    assert [point["trial"] for point in first] == ["t000", "t001", "t002", "t003"]
    again = suggested(study, book, 6)
    assert again[:4] == first
    assert [point["trial"] for point in again[4:]] == ["t004", "t005"]
    assert len({point["training.lr"] for point in again}) == 6


def test_a_gap_in_the_book_doubles_no_number(tmp_path: Path) -> None:
    study, book = study_of(tmp_path), Book(tmp_path)
    first = suggested(study, book, 4)
    (tmp_path / "trials" / "t001.json").unlink()
    again = suggested(study, book, 5)
    # What the results have of t001 is of a point that is lost: no other takes its number.
    assert [point["trial"] for point in again] == ["t000", "t002", "t003", "t004", "t005"]
    assert again[:3] == [first[0], *first[2:]]
    entries = {entry.trial: entry.point["training.lr"] for entry in book.entries()}
    assert entries == {point["trial"]: point["training.lr"] for point in again}


def test_a_gap_in_a_grid_is_the_same_point_again(tmp_path: Path) -> None:
    study, book = replace(study_of(tmp_path, space=GRID), search="grid"), Book(tmp_path)
    first = suggested(study, book, 3)
    assert [point["training.lr"] for point in first] == [0.01, 0.02, 0.03]
    (tmp_path / "trials" / "t001.json").unlink()
    again = suggested(study, book, 4)
    assert again[:3] == first
    assert again[3] == {"training.lr": 0.04, "trial": "t003"}


def test_failed_trials_are_passed_over_or_run_again(tmp_path: Path) -> None:
    study, book = study_of(tmp_path), Book(tmp_path)
    first = suggested(study, book, 3)
    book.write(Entry("t001", {"training.lr": first[1]["training.lr"]}, FAILED, "why"))
    assert [point["trial"] for point in suggested(study, book, 3)] == ["t000", "t002", "t003"]
    again = suggested(study, book, 4, retries=True)
    assert [point["trial"] for point in again] == ["t000", "t001", "t002", "t003"]


def test_drawn_points_fill_a_gap_with_the_same_point(tmp_path: Path) -> None:
    study = study_of(tmp_path, "pbt")
    drawn = drawn_points(study, [], 4)
    assert drawn_points(study, [drawn[0], drawn[3]], 4) == drawn
