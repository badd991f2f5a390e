"""The book of a search: who may go on with it, and with what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trials import study_of

from spatl_ray.errors import ConfigError, ResultsError
from tune.book import ENDED, Book, Entry, trial_id
from tune.study import Study


def test_a_study_reads_back(tmp_path: Path) -> None:
    study = replace(study_of(tmp_path), overrides=("rounds=3",))
    assert Study.from_json(study.to_json()) == study


def test_entries_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    book = Book(tmp_path)
    numbers = [0, 7, 42, 999, 1000, 1001]
    entries = [Entry(trial_id(number), {"training.lr": 0.1 * number}) for number in numbers]
    for entry in reversed(entries):
        book.write(entry)
    assert book.entries() == entries
    ended = replace(entries[1], status=ENDED)
    book.write(ended)
    assert book.entry("t007") == ended
    assert book.entry("t008") is None


def test_foreign_files_are_no_trials(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.write(Entry("t000", {"training.lr": 0.1}))
    for name in ("t0_notes.json", "t1.json", "t0000.json", "t001.json.bak", "t002 (copy).json"):
        (tmp_path / "trials" / name).write_text("not a trial's")
    assert [entry.trial for entry in book.entries()] == ["t000"]


GOOD = '{"trial": "t000", "point": {"training.lr": 0.1}, "status": "begun", "error": null}'


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must be JSON that can be read"),
        (GOOD[:30], "must be JSON that can be read"),
        ("[1]", "must hold a mapping, got [1]"),
        ('{"trial": "t000"}', "must hold trial, point, status, error, got trial"),
        (GOOD.replace('"t000"', '"t001"'), "must be of trial 't000', got 't001'"),
        (GOOD.replace("begun", "begin"), "must have status begun, ended or failed, got 'begin'"),
        (GOOD.replace('{"training.lr": 0.1}', "[0.1]"), "must have a mapping as point, got [0.1]"),
        (GOOD.replace("null", "3"), "must have text or null as error, got 3"),
    ],
)
def test_a_damaged_trial_names_file_and_rule(tmp_path: Path, text: str, rule: str) -> None:
    book = Book(tmp_path)
    path = tmp_path / "trials" / "t000.json"
    path.parent.mkdir()
    path.write_text(text)
    for read in (book.entries, lambda: book.entry("t000")):
        with pytest.raises(ResultsError) as caught:
            read()
        assert str(caught.value).startswith(f"{path} {rule}")


@pytest.mark.parametrize(
    "point", [{}, {"training.lr": 0.1, "more": 1}, {"training.lr": "x"}, {"training.lr": 5.0}]
)
def test_a_trial_outside_of_the_space_is_refused(tmp_path: Path, point: dict[str, Any]) -> None:
    book, space = Book(tmp_path), study_of(tmp_path).ranges
    book.check(space, [Entry("t000", {"training.lr": 0.05})])
    with pytest.raises(ResultsError, match=r"t001\.json must have a point of the space, got"):
        book.check(space, [Entry("t001", point)])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", "must be JSON that can be read"),
        ("null", "must hold a mapping, got None"),
        ("{}", "must hold a search of this version, got 'overrides'"),
        ('{"overrides": [], "objectives": [], "new": 1}', "must hold a search of this version"),
        ('{"overrides": 1, "objectives": []}', "must hold a search of this version"),
    ],
)
def test_a_damaged_search_names_file_and_rule(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(ResultsError) as caught:
        Book(tmp_path).open(study_of(tmp_path), resume=True)
    assert str(caught.value).startswith(f"{tmp_path / 'study.json'} {rule}")


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "2.5"])
def test_a_damaged_number_of_trials_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "asked").write_text(text)
    with pytest.raises(ResultsError, match="asked must hold a number of trials, got"):
        Book(tmp_path).asked(None, 20)


def test_a_search_is_begun_once_and_resumed_as_it_was(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    book = Book(tmp_path / "book")
    with pytest.raises(ConfigError, match="--resume needs a search 'study', got none"):
        book.open(study, resume=True)
    book.open(study, resume=False).close()
    with pytest.raises(ConfigError, match="search 'study' is already in"):
        book.open(study, resume=False)
    with pytest.raises(ConfigError, match="got another seed: 1 instead of 0"):
        book.open(replace(study, seed=1), resume=True)
    book.open(study, resume=True).close()


def test_one_process_runs_a_search(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    book = Book(tmp_path / "book")
    with book.open(study, resume=False), pytest.raises(ResultsError, match="by another process"):
        book.open(study, resume=True)


def test_a_search_that_goes_on_has_as_many_trials_as_before(tmp_path: Path) -> None:
    assert Book(tmp_path).asked(None, 20) == 20
    assert Book(tmp_path).asked(24, 20) == 24
    assert Book(tmp_path).asked(None, 20) == 24
    assert Book(tmp_path).asked(30, 20) == 30
