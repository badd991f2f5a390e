"""What a person sees of a run: a live table on a terminal, one plain line a round elsewhere."""

from __future__ import annotations

import math
from collections import deque

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from spatl_ray.callbacks import Callback, Row
from spatl_ray.config import Experiment

SHOWN = 10
"""Rounds and events that the live table shows at once: the last ones."""


class Progress(Callback):
    """What the command line shows.

    Args:
        console: where to write; None takes the standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._view: _Live | _Lines | None = None

    def run_started(self, experiment: Experiment, run_id: str) -> None:
        """Say which run begins, and open the view that fits the console."""
        self._line(f"run {run_id}")
        view = _Live if self._console.is_terminal else _Lines
        self._view = view(self._console, experiment.rounds, experiment.cohort_size)

    def clients_done(self, round_: int, done: int, cohort: int) -> None:
        """Move the bar."""
        if self._view:
            self._view.clients_done(done, cohort)

    def round_ended(self, row: Row) -> None:
        """Show a round."""
        if self._view:
            self._view.round_ended(row)

    def event(self, row: Row) -> None:
        """Show an event; it stays in the log."""
        self._line(_event_text(row))

    def run_ended(self, status: str) -> None:
        """Close the view and say how the run ended."""
        self.close()
        self._line(f"run {status}")

    def close(self) -> None:
        """Give the terminal back, also after an error; may be called twice."""
        if self._view:
            self._view.close()
        self._view = None

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


class _Lines:
    """One line a round, for logs."""

    def __init__(self, console: Console, rounds: int, cohort: int) -> None:
        self._console = console
        self._rounds = rounds
        self._ended = 0

    def clients_done(self, done: int, cohort: int) -> None:
        """A log shows whole rounds only."""

    def round_ended(self, row: Row) -> None:
        self._ended += 1
        own, everywhere, up, down, seconds = _cells(row)
        text = (
            f"round {row['round']} ({self._ended} of {self._rounds})  "
            f"own split {own}  global {everywhere}  MB up {up}  MB down {down}  {seconds} s"
        )
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Nothing is held open."""


class _Live:
    """The last rounds as a table over a bar, drawn in place."""

    def __init__(self, console: Console, rounds: int, cohort: int) -> None:
        self._rows: deque[tuple[str, ...]] = deque(maxlen=SHOWN)
        self._ended = 0
        self._cohort = cohort
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[clients]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task(
            f"0 of {rounds} rounds", total=rounds * cohort, clients=f"0 of {cohort} clients"
        )
        self._rounds = rounds
        self._live = Live(get_renderable=self._drawn, console=console, refresh_per_second=4)
        self._live.start()

    def clients_done(self, done: int, cohort: int) -> None:
        share = done / max(cohort, 1)
        completed = (self._ended + share) * self._cohort
        self._bar.update(self._task, completed=completed, clients=f"{done} of {cohort} clients")

    def round_ended(self, row: Row) -> None:
        self._ended += 1
        self._rows.append((str(row["round"]), *_cells(row)))
        self._bar.update(
            self._task,
            completed=self._ended * self._cohort,
            description=f"{self._ended} of {self._rounds} rounds",
        )

    def close(self) -> None:
        self._live.stop()

    def _drawn(self) -> RenderableType:
        table = Table()
        for heading in ("round", "own split", "global", "MB up", "MB down", "s"):
            table.add_column(heading, justify="right")
        for cells in self._rows:
            table.add_row(*cells)
        return Group(table, self._bar)


def _cells(row: Row) -> tuple[str, ...]:
    """Own-split and global accuracy, MB up and down since the run began, seconds of the round."""
    return (
        _number(row.get("local_test_accuracy_mean"), 4),
        _number(row.get("global_test_accuracy"), 4),
        _number(row.get("bytes_up_cumulative"), 3, scale=1e-6),
        _number(row.get("bytes_down_cumulative"), 3, scale=1e-6),
        _number(row.get("seconds_total"), 2),
    )


def _number(value: object, digits: int, scale: float = 1.0) -> str:
    """The number, or "-" for one that was not measured."""
    if not isinstance(value, int | float) or math.isnan(value):
        return "-"
    return f"{value * scale:.{digits}f}"


def _event_text(row: Row) -> str:
    """An event in one line: where it happened, its kind, its message."""
    where = [f"{name} {row[name]}" for name in ("round", "client") if row.get(name) is not None]
    message = "".join(each if each.isprintable() else " " for each in str(row.get("message", "")))
    return f"{', '.join([*where, str(row.get('kind', 'event'))])}: {' '.join(message.split())}"
