"""Ctrl-C at any line of a flush: whoever flushes again finds each row once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from analysis.load import load
from spatl_ray.results import files
from spatl_ray.results.writer import ResultsWriter

MakeRow = Callable[..., dict[str, object]]

WATCHED = (files.__file__, sys.modules[ResultsWriter.__module__].__file__)


class CtrlC:
    """Sends this process the signal when so many lines of the results' files were run."""

    def __init__(self, lines: int) -> None:
        self.left = lines

    def __call__(self, frame: FrameType, what: str, _: Any) -> Any:
        if frame.f_code.co_filename not in WATCHED:
            return None
        if what == "line":
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGINT)
        return self


def _fill(writer: ResultsWriter, make_row: MakeRow, round_: int) -> None:
    writer.add("events", [make_row("events", round=round_, message=f"in {round_}")])


def _stopped(writer: ResultsWriter, lines: int) -> bool:
    """Whether the signal came while rows were written."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    tracer = sys.gettrace()
    sys.settrace(CtrlC(lines))
    try:
        writer.flush()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracer)
        signal.signal(signal.SIGINT, before)
    return False


def test_no_row_is_twice_or_lost(tmp_path: Path, make_row: MakeRow) -> None:
    """The events of round 1 go into the file of those without a round, which came before."""
    lines = 1
    while True:
        folder = tmp_path / str(lines)
        writer = ResultsWriter(folder, "run", flush_seconds=3600)
        writer.start(make_row("runs"))
        writer.add("events", [make_row("events", round=None, message="resumed")])
        writer.flush()
        _fill(writer, make_row, 0)
        was_stopped = _stopped(writer, lines)
        if lines % 2:
            _fill(writer, make_row, 1)
        writer.finish("interrupted")
        rounds = [0, 1] if lines % 2 else [0]
        told = load(folder, "events")["message"].tolist()
        assert told == ["resumed", *(f"in {r}" for r in rounds)]
        if not was_stopped:
            break
        lines += 1
    assert lines > 30


@pytest.mark.parametrize("flushes", [1, 2])
def test_rows_without_a_key_are_added_to_those_of_an_earlier_flush(
    tmp_path: Path, make_row: MakeRow, flushes: int
) -> None:
    writer = ResultsWriter(tmp_path, "run", flush_seconds=3600)
    writer.start(make_row("runs"))
    for number in range(4):
        writer.add("events", [make_row("events", round=None, message=str(number))])
        if number % flushes == 0:
            writer.flush()
    writer.finish("finished")
    assert load(tmp_path, "events")["message"].tolist() == ["0", "1", "2", "3"]
