from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from spatl_ray.errors import ResultsError
from spatl_ray.results.schema import TABLES, file_schema, unmeasured
from spatl_ray.results.writer import ResultsWriter

MakeRow = Callable[..., dict[str, object]]


def _started(
    folder: Path, make_row: MakeRow, run_id: str = "run", **options: object
) -> ResultsWriter:
    writer = ResultsWriter(folder, run_id, **options)  # type: ignore[arg-type]
    writer.start(make_row("runs"))
    return writer


def _names(folder: Path, table: str, run_id: str = "run") -> list[str]:
    return sorted(path.name for path in (folder / table / f"run_id={run_id}").iterdir())


def _fill(writer: ResultsWriter, make_row: MakeRow, rounds: range) -> None:
    for number in rounds:
        clients = [make_row("clients", round=number, client=c, bytes_up=c) for c in range(3)]
        writer.add("clients", clients)
        writer.add("layers", [make_row("layers", round=number, layer="conv1")])
        writer.add("rounds", [make_row("rounds", round=number, lr=number / 8)])
        writer.add("events", [make_row("events", round=number, message=f"end of {number}")])


def _compared(folder: Path, run_id: str = "run") -> dict[str, list[dict[str, object]]]:
    found = {}
    for table in TABLES:
        dataset = ds.dataset(folder / table, partitioning="hive")
        columns = [name for name in unmeasured(table) if name != "run_id"]
        rows = dataset.to_table(columns, filter=ds.field("run_id") == run_id)
        found[table] = rows.to_pylist()
    return found


def test_pandas_and_pyarrow_read_back_what_was_written(tmp_path: Path, make_row: MakeRow) -> None:
    for run_id in ("first-s0", "second-s1"):
        writer = _started(tmp_path, make_row, run_id, flush_seconds=0)
        _fill(writer, make_row, range(4))
        writer.finish("finished")
    for table in TABLES:
        frame = pd.read_parquet(tmp_path / table)
        assert set(frame.columns) == set(TABLES[table].names)
        assert sorted(set(frame["run_id"])) == ["first-s0", "second-s1"]
        inside = pq.read_schema(next((tmp_path / table).rglob("*.parquet")))
        assert inside.equals(file_schema(table), check_metadata=True)
        whole = ds.dataset(tmp_path / table, partitioning="hive")
        assert whole.schema.field("run_id").type == pa.string()
        assert whole.count_rows() == len(frame)
    clients = pd.read_parquet(tmp_path / "clients", filters=[("run_id", "==", "second-s1")])
    assert clients["round"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert clients["bytes_up"].tolist() == [0, 1, 2] * 4


def test_start_shows_a_running_run_and_finish_ends_it(tmp_path: Path, make_row: MakeRow) -> None:
    begun = datetime.now(UTC)
    writer = _started(tmp_path, make_row)
    row = pd.read_parquet(tmp_path / "runs").iloc[0]
    assert (row["status"], row["run_id"]) == ("running", "run")
    assert pd.isna(row["end"])
    assert begun <= row["start"] <= datetime.now(UTC)
    writer.finish("failed", "EngineError: no client")
    done = pd.read_parquet(tmp_path / "runs").iloc[0]
    assert (done["status"], done["error"]) == ("failed", "EngineError: no client")
    assert done["end"] >= done["start"] == row["start"]


def test_flush_waits_for_a_new_round_after_the_time_is_up(
    tmp_path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    writer = _started(tmp_path, make_row, flush_seconds=10)
    rows = tmp_path / "rounds"
    writer.add("rounds", [make_row("rounds", round=1)])
    now = 109.0
    writer.add("rounds", [make_row("rounds", round=2)])
    assert not rows.exists()
    now = 111.0
    writer.add("rounds", [make_row("rounds", round=2)])
    assert not rows.exists()
    writer.add("rounds", [make_row("rounds", round=3)])
    assert _names(tmp_path, "rounds") == ["round-000001.parquet"]
    assert pd.read_parquet(rows)["round"].tolist() == [1, 2]
    now = 112.0
    writer.add("rounds", [make_row("rounds", round=4)])
    writer.finish("finished")
    assert _names(tmp_path, "rounds") == ["round-000001.parquet"]
    assert pd.read_parquet(rows)["round"].tolist() == [1, 2, 3, 4]


def test_a_round_flushed_twice_keeps_both_halves(tmp_path: Path, make_row: MakeRow) -> None:
    writer = _started(tmp_path, make_row)
    for client in (0, 1):
        writer.add("clients", [make_row("clients", round=7, client=client)])
        writer.flush()
    assert _names(tmp_path, "clients") == ["round-000007.parquet"]
    assert pd.read_parquet(tmp_path / "clients")["client"].tolist() == [0, 1]


def test_a_replayed_round_takes_the_place_of_the_first(tmp_path: Path, make_row: MakeRow) -> None:
    writer = _started(tmp_path, make_row, flush_seconds=0)
    _fill(writer, make_row, range(6))
    writer.add("events", [make_row("events", round=None, message="worker lost")])
    writer.add("rounds", [make_row("rounds", round=3, lr=99.0)])
    writer.add("rounds", [make_row("rounds", round=3, lr=98.0)])
    writer.flush()
    rounds = pd.read_parquet(tmp_path / "rounds")
    assert rounds["round"].tolist() == [0, 1, 2, 3]
    assert rounds["lr"].tolist() == [0, 1 / 8, 2 / 8, 98]
    for table in ("clients", "layers"):
        assert pd.read_parquet(tmp_path / table)["round"].max() == 2
    messages = pd.read_parquet(tmp_path / "events")["message"].tolist()
    assert messages == ["end of 0", "end of 1", "end of 2", "worker lost"]


def test_events_without_a_round_go_to_the_round_last_seen(
    tmp_path: Path, make_row: MakeRow
) -> None:
    writer = _started(tmp_path, make_row)
    writer.add("events", [make_row("events", round=None)])
    writer.flush()
    writer.add("rounds", [make_row("rounds", round=12)])
    writer.add("events", [make_row("events", round=None)])
    writer.flush()
    assert _names(tmp_path, "events") == ["round-000000.parquet", "round-000012.parquet"]
    assert pd.read_parquet(tmp_path / "events")["round"].isna().all()


@pytest.mark.parametrize("stop", range(5))
def test_a_resumed_run_equals_one_that_never_stopped(
    tmp_path: Path, make_row: MakeRow, stop: int
) -> None:
    whole = _started(tmp_path / "whole", make_row)
    _fill(whole, make_row, range(6))
    whole.finish("finished")
    cut = _started(tmp_path / "cut", make_row, flush_seconds=0)
    _fill(cut, make_row, range(4))
    cut.finish("interrupted") if stop % 2 else cut.flush()
    started = pd.read_parquet(tmp_path / "cut" / "runs")["start"][0]
    resumed = _started(tmp_path / "cut", make_row, resume_at=stop)
    _fill(resumed, make_row, range(stop, 6))
    resumed.finish("finished")
    assert _compared(tmp_path / "cut") == _compared(tmp_path / "whole")
    assert pd.read_parquet(tmp_path / "cut" / "runs")["start"][0] == started


def test_a_taken_id_is_refused_and_the_run_left_alone(tmp_path: Path, make_row: MakeRow) -> None:
    writer = _started(tmp_path, make_row)
    _fill(writer, make_row, range(2))
    writer.finish("finished")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    with pytest.raises(
        ResultsError, match=r"'run' is already in .*results\.overwrite=true.*spatl resume goes on"
    ) as at:
        ResultsWriter(tmp_path, "run")
    assert str(tmp_path) in str(at.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_overwrite_replaces_the_run_of_this_id_only(tmp_path: Path, make_row: MakeRow) -> None:
    for run_id in ("run", "run-2"):
        writer = _started(tmp_path, make_row, run_id, flush_seconds=0)
        _fill(writer, make_row, range(3))
        writer.flush()
    other = _compared(tmp_path, "run-2")
    again = ResultsWriter(tmp_path, "run", overwrite=True)
    assert len(_compared(tmp_path)["rounds"]) == 3, "nothing goes before the new run starts"
    again.start(make_row("runs"))
    assert _compared(tmp_path, "run-2") == other
    found = _compared(tmp_path)
    assert [len(found[table]) for table in TABLES] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/results", "/dev/null/x"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ResultsError, match=r"results\.folder must be a folder .* got .*"):
        ResultsWriter(tmp_path / where, "run")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("run_id", ["", "a/b", "..", "a b", "12", "2026-01-02", "1e5", "a=b", "."])
def test_an_id_that_a_path_cannot_give_back_is_refused(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(ResultsError, match="run_id must be made of letters"):
        ResultsWriter(tmp_path, run_id)
    assert not list(tmp_path.iterdir())


def test_an_unwritten_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no run 'run' to resume"):
        ResultsWriter(tmp_path, "run", resume_at=3)


def test_calls_out_of_order_are_refused(tmp_path: Path, make_row: MakeRow) -> None:
    writer = ResultsWriter(tmp_path, "run")
    for call in (lambda: writer.add("rounds", []), lambda: writer.finish("finished")):
        with pytest.raises(ResultsError, match="'run' must be started"):
            call()
    with pytest.raises(ResultsError, match="column 'status' is the writer's own"):
        writer.start(make_row("runs", status="running"))
    assert not list(tmp_path.iterdir())
    writer.start(make_row("runs"))
    with pytest.raises(ResultsError, match="started once"):
        writer.start(make_row("runs"))
    with pytest.raises(ResultsError, match="written by start and finish"):
        writer.add("runs", [])
    with pytest.raises(ResultsError, match="got 'epochs'"):
        writer.add("epochs", [])
    for status, rule in (("running", "finished, interrupted or failed"), ("done", "one of")):
        with pytest.raises(ResultsError, match=rule):
            writer.finish(status)
    writer.finish("finished")
    with pytest.raises(ResultsError, match="not be finished"):
        writer.add("rounds", [])


def test_a_bad_row_changes_nothing(tmp_path: Path, make_row: MakeRow) -> None:
    writer = _started(tmp_path, make_row, flush_seconds=0)
    writer.add("rounds", [make_row("rounds", round=5)])
    with pytest.raises(ResultsError, match="'failed'"):
        writer.add("rounds", [make_row("rounds", round=2, failed="two")])
    writer.add("rounds", [])
    writer.finish("finished")
    assert pd.read_parquet(tmp_path / "rounds")["round"].tolist() == [5]
    assert not (tmp_path / "clients").exists()


def test_a_hundred_thousand_clients_a_flush(tmp_path: Path, make_row: MakeRow) -> None:
    writer = _started(tmp_path, make_row)
    row = make_row("clients", round=0)
    writer.add("clients", [row | {"client": client} for client in range(100_000)])
    writer.finish("finished")
    clients = pq.read_table(tmp_path / "clients", columns=["client"])["client"]
    assert clients.to_pylist() == list(range(100_000))
