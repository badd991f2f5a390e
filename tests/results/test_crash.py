"""What readers find after a kill at any step, and that a resumed run is whole again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis.load import load
from spatl_ray.results.writer import ResultsWriter

pytestmark = pytest.mark.integration

MakeRow = Callable[..., dict[str, object]]

ROUNDS = 3
ROOT = Path(__file__).resolve().parents[2]


class Crash(BaseException):
    """The process is gone."""


class Disk:
    """Lets a number of changes to the file system through; then none, as after a kill."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, changes: int) -> None:
        self.left = changes
        for owner, name in ((Path, "unlink"), (Path, "replace"), (os, "fsync")):
            monkeypatch.setattr(owner, name, self._guarded(getattr(owner, name)))

    def _guarded(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Crash
            return change(*arguments, **options)

        return guarded


def _write(writer: ResultsWriter, make_row: MakeRow, rounds: range) -> None:
    for number in rounds:
        writer.add("clients", [make_row("clients", round=number, client=c) for c in (0, 1)])
        writer.add("rounds", [make_row("rounds", round=number)])


def _crash_in_finish(folder: Path, make_row: MakeRow, changes: int) -> bool:
    """Whether finish was cut short after so many changes to the file system."""
    writer = ResultsWriter(folder, "run", flush_seconds=0)
    writer.start(make_row("runs"))
    _write(writer, make_row, range(ROUNDS))
    writer.flush()
    with pytest.MonkeyPatch.context() as monkeypatch:
        Disk(monkeypatch, changes)
        try:
            writer.finish("finished")
        except Crash:
            return True
    return False


def test_a_crash_at_any_step_of_finish_shows_no_row_twice(
    tmp_path: Path, make_row: MakeRow
) -> None:
    steps = 0
    while _crash_in_finish(folder := tmp_path / str(steps), make_row, steps):
        plain = pd.read_parquet(folder / "rounds")["round"].tolist()
        assert plain == list(range(len(plain))), f"a prefix, each round once, after {steps} steps"
        assert load(folder, "rounds")["round"].tolist() == list(range(ROUNDS))
        clients = load(folder, "clients", ["round", "client"])
        assert clients.to_numpy().tolist() == [[r, c] for r in range(ROUNDS) for c in (0, 1)]

        writer = ResultsWriter(folder, "run", resume_at=ROUNDS - 1)
        writer.start(make_row("runs"))
        _write(writer, make_row, range(ROUNDS - 1, ROUNDS + 1))
        writer.finish("finished")
        assert pd.read_parquet(folder / "rounds")["round"].tolist() == list(range(ROUNDS + 1))
        assert len(pd.read_parquet(folder / "clients")) == 2 * (ROUNDS + 1)
        names = sorted(p.name for p in (folder / "rounds" / "run_id=run").iterdir())
        assert names == ["round-000000.parquet"], "no leftovers"
        steps += 1
    assert steps >= 2 * (ROUNDS + 3), (
        "two tables: sync, rename, sync, remove the later files, rename"
    )


def test_an_overwriting_start_removes_what_a_crash_left(tmp_path: Path, make_row: MakeRow) -> None:
    assert _crash_in_finish(tmp_path, make_row, 4)
    writer = ResultsWriter(tmp_path, "run", overwrite=True)
    writer.start(make_row("runs"))
    _write(writer, make_row, range(1))
    writer.finish("finished")
    assert load(tmp_path, "rounds")["round"].tolist() == [0]


def test_a_crash_at_any_step_of_a_rewind_is_undone_by_the_next(
    tmp_path: Path, make_row: MakeRow
) -> None:
    for steps in range(12):
        folder = tmp_path / str(steps)
        writer = ResultsWriter(folder, "run")
        writer.start(make_row("runs"))
        _write(writer, make_row, range(3))
        writer.flush()
        _write(writer, make_row, range(3, 6))
        writer.flush()
        with pytest.MonkeyPatch.context() as monkeypatch:
            Disk(monkeypatch, steps)
            try:
                writer.rewind(2)
            except Crash:
                seen = load(folder, "rounds")["round"].tolist()
                assert seen == list(range(len(seen)))
        again = ResultsWriter(folder, "run", resume_at=2)
        again.start(make_row("runs"))
        assert load(folder, "rounds")["round"].tolist() == [0, 1]
        assert load(folder, "clients")["round"].tolist() == [0, 0, 1, 1]


_ENDLESS = """
import json, sys
from pathlib import Path
from spatl_ray.results.writer import ResultsWriter
run, row = json.loads(sys.argv[2])
writer = ResultsWriter(Path(sys.argv[1]), "run", flush_seconds=0)
writer.start(run)
number = 0
while True:
    writer.add("rounds", [row | {"round": number}])
    number += 1
"""


def test_kill_nine_leaves_whole_files_and_a_prefix_of_rounds(
    tmp_path: Path, make_row: MakeRow
) -> None:
    rows = json.dumps([make_row("runs"), make_row("rounds")])
    child = subprocess.Popen([sys.executable, "-c", _ENDLESS, str(tmp_path), rows], cwd=ROOT)
    place = tmp_path / "rounds" / "run_id=run"
    patience = time.monotonic() + 30
    while len(list(place.glob("*.parquet"))) < 20 and time.monotonic() < patience:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    files = sorted(place.glob("*.parquet"))
    assert len(files) >= 20
    assert [pq.read_table(f, partitioning=None)["round"].to_pylist() for f in files] == [
        [number] for number in range(len(files))
    ]
    writer = ResultsWriter(tmp_path, "run", resume_at=7)
    writer.start(make_row("runs"))
    writer.finish("interrupted")
    assert load(tmp_path, "rounds")["round"].tolist() == list(range(7))
    assert load(tmp_path, "runs")["status"].tolist() == ["interrupted"]
    assert [path.name for path in place.iterdir()] == ["round-000000.parquet"]
