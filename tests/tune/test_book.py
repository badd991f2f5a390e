"""The book of a search: who may go on with it, and with what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
