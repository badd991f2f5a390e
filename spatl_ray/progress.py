"""What a person sees of a run: a live table on a terminal, one plain line a round elsewhere."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.spinner import Spinner
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
        self._status: Live | None = None

    def preparing(self, step: str) -> None:
        """Say what is going on: on a terminal in place, elsewhere in a line."""
        text = f"{step} ..."
        if not self._console.is_terminal:
            self._line(text)
        elif self._status:
            self._status.update(Spinner("dots", Text(text)), refresh=True)
        else:
            self._status = Live(Spinner("dots", Text(text)), console=self._console, transient=True)
            self._status.start(refresh=True)

    def run_started(self, experiment: Experiment, run_id: str) -> None:
        """Say which run begins, and open the view that fits the console."""
        self.close()
        self._line(f"run {run_id}")
        view = _Live if self._console.is_terminal else _Lines
        self._view = view(self._console, experiment)

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
        for shown in (self._status, self._view):
            if shown:
                shown.stop()
        self._status = self._view = None

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


class StageProgress:
    """A bar for each stage of a long job on a terminal, lines elsewhere.

    Args:
        console: where to write; None takes the standard output.
    """

    LINES = 20
    """Lines that a stage writes where there is no terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._stages: dict[str, TaskID] = {}

    def __enter__(self) -> StageProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def told(self, stage: str, done: int, whole: int, figures: Row) -> None:
        """Show how far a stage is.

        Args:
            stage: its name.
            done: how much of it.
            whole: of how much; 0 if it cannot be counted.
            figures: to be shown beside it.
        """
        text = "  ".join(f"{k.replace('_', ' ')} {v:.3g}" for k, v in figures.items())
        if not self._console.is_terminal:
            if not whole or done == whole or done % max(1, whole // self.LINES) == 0:
                counted = f" {done}/{whole}  {text}" if whole else " ..."
                self._console.print(Text(stage + counted), soft_wrap=True)
            return
        if stage not in self._stages:
            self._stages[stage] = self._bar.add_task(stage, total=whole, figures="")
        self._bar.update(self._stages[stage], completed=done, total=whole, figures=text)


@dataclass(frozen=True)
class _Column:
    """What is shown of a round: a column of table `rounds`."""

    heading: str
    name: str
    digits: int
    scale: float = 1.0

    def cell(self, row: Row) -> str:
        """The number, or "-" for one that was not measured."""
        value = row.get(self.name)
        if not isinstance(value, int | float) or math.isnan(value):
            return "-"
        return f"{value * self.scale:.{self.digits}f}"


def _columns(experiment: Experiment) -> list[_Column]:
    """Bytes and simulated seconds are those since the run began, seconds those of the round."""
    own = "local" if experiment.evaluation.untrained == "skip" else "panel_local"
    columns = [
        _Column("own split", f"{own}_test_accuracy_mean", 4),
        _Column("global", "global_test_accuracy", 4),
        _Column("MB up", "bytes_up_cumulative", 3, 1e-6),
        _Column("MB down", "bytes_down_cumulative", 3, 1e-6),
    ]
    if experiment.devices is not None:
        columns.append(_Column("late", "late", 0))
        columns.append(_Column("simulated s", "simulated_seconds_cumulative", 1))
    return [*columns, _Column("s", "seconds_total", 2)]


class _Lines:
    """One line a round, for logs."""

    def __init__(self, console: Console, experiment: Experiment) -> None:
        self._console = console
        self._rounds = experiment.rounds
        *self._columns, self._seconds = _columns(experiment)

    def clients_done(self, done: int, cohort: int) -> None:
        """A log shows whole rounds only."""

    def round_ended(self, row: Row) -> None:
        start = f"round {row['round']} ({_ended(row)} of {self._rounds})"
        cells = [f"{column.heading} {column.cell(row)}" for column in self._columns]
        text = "  ".join([start, *cells, f"{self._seconds.cell(row)} s"])
        self._console.print(Text(text), soft_wrap=True)

    def stop(self) -> None:
        """Nothing is held open."""


class _Live:
    """The last rounds as a table over a bar, drawn in place."""

    def __init__(self, console: Console, experiment: Experiment) -> None:
        rounds, cohort = experiment.rounds, experiment.cohort_size
        self._columns = _columns(experiment)
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
        self._ended = _ended(row)
        self._rows.append((str(row["round"]), *(column.cell(row) for column in self._columns)))
        self._bar.update(
            self._task,
            completed=self._ended * self._cohort,
            description=f"{self._ended} of {self._rounds} rounds",
        )

    def stop(self) -> None:
        self._live.stop()

    def _drawn(self) -> RenderableType:
        table = Table()
        for heading in ("round", *(column.heading for column in self._columns)):
            table.add_column(heading, justify="right")
        for cells in self._rows:
            table.add_row(*cells)
        return Group(table, self._bar)


def _ended(row: Row) -> int:
    """Rounds that have ended with a row's: a run that goes on, or back, does not count from 0."""
    return int(str(row["round"])) + 1


def _event_text(row: Row) -> str:
    """An event in one line: where it happened, its kind, its message."""
    where = [f"{name} {row[name]}" for name in ("round", "client") if row.get(name) is not None]
    message = "".join(each if each.isprintable() else " " for each in str(row.get("message", "")))
    return f"{', '.join([*where, str(row.get('kind', 'event'))])}: {' '.join(message.split())}"
