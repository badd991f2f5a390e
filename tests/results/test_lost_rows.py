"""Rows that are removed while a run goes on: an error that names what is gone, never a table with holes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from spatl_ray.errors import ResultsError
from spatl_ray.results.inventory import refuse_lost_rows
from spatl_ray.results.reader import read_run
from spatl_ray.results.writer import ResultsWriter

MakeRow = Callable[..., dict[str, object]]


def started(folder: Path, make_row: MakeRow, flushes: int = 2) -> ResultsWriter:
    """A run with so many files a table, and a row that waits in each."""
    writer = ResultsWriter(folder, "run", flush_seconds=3600)
    writer.start(make_row("runs"))
    for number in range(flushes + 1):
        writer.add("clients", [make_row("clients", round=number, client=c) for c in (0, 1)])
        writer.add("rounds", [make_row("rounds", round=number)])
        writer.add("events", [make_row("events", round=None)])
        if number < flushes:
            writer.flush()
    return writer


GONE = {
    "": "",
    "clients": "clients",
    "runs": "runs",
    "rounds/run_id=run": "rounds/run_id=run",
    "rounds/run_id=run/round-000000.parquet": "rounds/run_id=run/round-000000.parquet",
    "events/run_id=run/round-000001.parquet": "events/run_id=run/round-000001.parquet",
}


@pytest.mark.parametrize("call", ["flush", "rewind", "finish"])
@pytest.mark.parametrize("gone", GONE)
def test_what_is_gone_is_named_and_not_made_again(
    tmp_path: Path, make_row: MakeRow, gone: str, call: str
) -> None:
    folder = tmp_path / "results"
    writer = started(folder, make_row)
    place = folder / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    arguments = {"flush": (), "rewind": (1,), "finish": ("finished",)}[call]
    with pytest.raises(ResultsError, match="must stay in") as caught:
        getattr(writer, call)(*arguments)
    assert f"got no {place} any more" in str(caught.value)
    after = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    assert place.exists() == (place == folder and bool(after))
    if call == "finish" and gone not in ("", "runs"):
        (runs,) = (path for path in after if path.is_relative_to(folder / "runs"))
        row = pd.read_parquet(runs).iloc[0]
        assert (row["status"], row["error"]) == ("failed", f"ResultsError: {caught.value}")
        del before[runs], after[runs]
    assert after == before


def test_a_failed_run_tells_both_reasons(tmp_path: Path, make_row: MakeRow) -> None:
    writer = started(tmp_path, make_row)
    shutil.rmtree(tmp_path / "clients")
    with pytest.raises(ResultsError, match="must stay in"):
        writer.finish("failed", "EngineError: no client")
    (error,) = pd.read_parquet(tmp_path / "runs")["error"]
    assert error.startswith("EngineError: no client; what run 'run' has written must stay in ")


def test_a_file_that_lost_rows_is_found_out_at_the_end(tmp_path: Path, make_row: MakeRow) -> None:
    writer = started(tmp_path, make_row)
    writer.flush()
    first = min((tmp_path / "rounds").rglob("*.parquet"))
    pq.write_table(pq.read_table(first, partitioning=None).slice(0, 0), first)
    with pytest.raises(ResultsError, match=r"got fewer rows than that in .*rounds"):
        writer.finish("finished")


def test_rows_are_counted_as_they_are_on_the_disk(tmp_path: Path, make_row: MakeRow) -> None:
    writer = started(tmp_path, make_row)
    assert writer.rows() == {"rounds": 2, "clients": 4, "layers": 0, "events": 2}
    writer.flush()
    assert writer.rows() == {"rounds": 3, "clients": 6, "layers": 0, "events": 3}
    writer.rewind(1)
    assert writer.rows() == {"rounds": 1, "clients": 2, "layers": 0, "events": 3}
    writer.finish("interrupted")
    again = ResultsWriter(tmp_path, "run", resume_at=1)
    again.start(make_row("runs"))
    assert again.rows() == {"rounds": 1, "clients": 2, "layers": 0, "events": 3}


@pytest.mark.parametrize("table", ["rounds", "clients", "events"])
def test_a_run_without_its_earlier_rows_does_not_go_on(
    tmp_path: Path, make_row: MakeRow, table: str
) -> None:
    writer = started(tmp_path, make_row, flushes=3)
    expected = writer.rows()
    writer.finish("interrupted")
    refuse_lost_rows(tmp_path, "run", 3, expected)
    shutil.rmtree(tmp_path / table)
    rows = expected[table]
    rule = rf"{table} must hold the {rows} rows that run 'run' wrote before round 3, got 0"
    with pytest.raises(ResultsError, match=rule):
        refuse_lost_rows(tmp_path, "run", 3, expected)


def test_a_run_whose_row_is_lost_is_told_from_one_that_never_was(
    tmp_path: Path, make_row: MakeRow
) -> None:
    started(tmp_path, make_row).flush()
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(ResultsError, match=r"the row of run 'run', got none, but rows of it in "):
        read_run(tmp_path, "run")
    with pytest.raises(ResultsError, match="RUN must be a run in"):
        read_run(tmp_path, "other")
