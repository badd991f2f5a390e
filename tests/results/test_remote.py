"""What readers of an address find after a kill at any request, and that a resumed run is whole again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from buckets import copied, objects

from analysis.load import load
from spatl_ray.addresses import working_folder
from spatl_ray.errors import ResultsError
from spatl_ray.results.remote import Remote
from spatl_ray.results.writer import ResultsWriter

pytestmark = pytest.mark.integration

MakeRow = Callable[..., dict[str, object]]

ROUNDS = 3


class Crash(BaseException):
    """The process is gone."""


class Requests:
    """Lets a number of changes at the address through; then none, as after a kill."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, changes: int) -> None:
        self.left = changes
        for name in ("_upload", "_remove"):
            monkeypatch.setattr(Remote, name, self._guarded(getattr(Remote, name)))

    def _guarded(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Crash
            return change(*arguments)

        return guarded


def _writer(address: str, make_row: MakeRow, resume_at: int | None = None) -> ResultsWriter:
    """Of a run that begins, or of one that goes on on another machine."""
    here = working_folder(address)
    remote = Remote(address, "run")
    if resume_at is not None:
        shutil.rmtree(here)
        remote.pull()
    writer = ResultsWriter(here, "run", flush_seconds=0, resume_at=resume_at, remote=remote)
    writer.start(make_row("runs"))
    return writer


def _write(writer: ResultsWriter, make_row: MakeRow, rounds: range) -> None:
    for number in rounds:
        writer.add("rounds", [make_row("rounds", round=number)])


def _is_cut_short(act: Callable[[], object], requests: int) -> bool:
    """Whether something was cut short after so many requests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        Requests(monkeypatch, requests)
        try:
            act()
        except Crash:
            return True
    return False


def _check_mirrored(address: str) -> None:
    """The working copy's files are there, and no others."""
    here = working_folder(address)
    mine = {
        str(path.relative_to(here)): path.read_bytes()
        for path in here.rglob("*")
        if path.is_file() and path.name != "lock"
    }
    assert objects(address) == mine


REMOVED = 2
"""After so many requests of `finish` the hidden file stands for three, one of which is gone."""


@pytest.mark.parametrize(
    "requests", [REMOVED, *(pytest.param(r, marks=pytest.mark.slow) for r in (0, 1, 3, 4, 5, 6))]
)
def test_a_crash_at_any_request_of_finish_shows_no_row_twice(
    bucket: str, make_row: MakeRow, requests: int
) -> None:
    """Hidden, remove two, put, remove hidden; the row of the run: six."""
    writer = _writer(bucket, make_row)
    _write(writer, make_row, range(ROUNDS))
    writer.flush()
    is_cut = _is_cut_short(lambda: writer.finish("finished"), requests)
    assert is_cut == (requests < 6)
    assert load(bucket, "rounds")["round"].tolist() == list(range(ROUNDS))
    (status,) = load(bucket, "runs")["status"]
    assert status == ("running" if is_cut else "finished")
    if requests == REMOVED:
        assert sum(name.startswith("rounds/") for name in objects(bucket)) == ROUNDS
    again = _writer(bucket, make_row, resume_at=ROUNDS - 1)
    _write(again, make_row, range(ROUNDS - 1, ROUNDS + 1))
    again.finish("finished")
    _check_mirrored(bucket)
    assert load(bucket, "rounds")["round"].tolist() == list(range(ROUNDS + 1))


@pytest.mark.parametrize(
    "requests", [1, *(pytest.param(r, marks=pytest.mark.slow) for r in (0, 2, 3))]
)
def test_a_crash_at_any_request_of_a_rewind_is_undone_by_the_next(
    bucket: str, make_row: MakeRow, requests: int
) -> None:
    """Three files are removed, the last first."""
    writer = _writer(bucket, make_row)
    _write(writer, make_row, range(5))
    writer.flush()
    assert _is_cut_short(lambda: writer.rewind(2), requests) == (requests < 3)
    assert load(bucket, "rounds")["round"].tolist() == list(range(5 - requests))
    _writer(bucket, make_row, resume_at=2)
    assert load(bucket, "rounds")["round"].tolist() == [0, 1]


def test_overwriting_from_another_machine_leaves_nothing_of_before(
    bucket: str, make_row: MakeRow
) -> None:
    writer = _writer(bucket, make_row)
    _write(writer, make_row, range(ROUNDS))
    writer.flush()
    here = working_folder(bucket)
    shutil.rmtree(here)
    with pytest.raises(
        ResultsError, match=r"run 'run' is already in s3://.*results.overwrite=true"
    ):
        _writer(bucket, make_row)
    remote = Remote(bucket, "run")
    remote.begin()
    assert [path.parent.parent.name for path in here.rglob("*.parquet")] == ["runs"]
    again = ResultsWriter(here, "run", overwrite=True, remote=remote)
    again.start(make_row("runs"))
    _write(again, make_row, range(1))
    again.finish("finished")
    _check_mirrored(bucket)
    assert load(bucket, "rounds")["round"].tolist() == [0]


def test_what_was_removed_at_the_address_is_not_there_any_more(
    bucket: str, make_row: MakeRow
) -> None:
    """Whatever a working copy still has."""
    writer = _writer(bucket, make_row)
    _write(writer, make_row, range(ROUNDS))
    writer.finish("finished")
    elsewhere = bucket.replace("/results?", "/other?")
    shutil.copytree(working_folder(bucket), working_folder(elsewhere))
    remote = Remote(elsewhere, "run")
    remote.begin()
    assert not [path for path in working_folder(elsewhere).rglob("*") if path.is_file()]
    with pytest.raises(ResultsError, match=r"RUN must be a run in s3://.*'run'; there are: none"):
        remote.pull()


def test_a_run_that_comes_or_ends_after_the_first_look_is_seen(
    bucket: str, make_row: MakeRow
) -> None:
    """Another process may have it until this one has taken the lock."""
    before = Remote(bucket, "run")
    writer = _writer(f"{bucket}&region=us-east-1", make_row)
    _write(writer, make_row, range(ROUNDS))
    writer.flush()
    begun = Remote(bucket, "run")
    writer.finish("finished")
    before.begin()
    with pytest.raises(ResultsError, match="run 'run' is already in s3://"):
        ResultsWriter(working_folder(bucket), "run", remote=before)
    begun.pull()
    assert load(working_folder(bucket), "rounds")["round"].tolist() == list(range(ROUNDS))


def test_a_working_copy_that_cannot_be_written_is_named(
    tmp_path: Path, bucket: str, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the home folder of a container is read-only."""
    _writer(bucket, make_row)
    occupied = tmp_path / "file"
    occupied.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(occupied))
    for bring in (Remote(bucket, "run").begin, Remote(bucket, "run").pull):
        with pytest.raises(ResultsError, match=f"XDG_CACHE_HOME must .* {occupied}/spatl_ray"):
            bring()


def test_a_copy_of_an_address_is_a_results_folder(
    tmp_path: Path, bucket: str, make_row: MakeRow
) -> None:
    writer = _writer(bucket, make_row)
    _write(writer, make_row, range(ROUNDS))
    writer.finish("finished")
    for table in ("runs", "rounds"):
        there, here = load(bucket, table), load(copied(bucket, tmp_path / "copy"), table)
        assert there.equals(here)
