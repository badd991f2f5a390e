"""What a person sees of a sweep: a live table on a terminal, a line for each run that ends elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tune.grid import Cell
from tune.tasks import State

SHOWN = 12
"""Running runs that are shown at once."""


@dataclass
class View:
    """The state of a sweep.

    Attributes:
        console: where to write.
        axes: of the grid.
        seconds: that each run is to take, by run id.
        slots: how many run at once.
        running: runs by id.
        states: how far each is.
    """

    console: Console
    axes: tuple[str, ...]
    seconds: Mapping[str, float]
    slots: int
    running: dict[str, Cell] = field(default_factory=dict)
    states: Mapping[str, State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ended: set[str] = set()
        self._continued: set[str] = set()
        self._begun: dict[str, float] = {}
        self._expected = self._took = 0.0
        self._failed = 0
        self._live: Live | None = None

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self._drawn, console=self.console, refresh_per_second=2
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def begin(self, cell: Cell, continued: bool = False) -> None:
        """A run was given to Ray; one that goes on does not tell how long a whole one takes."""
        run_id = cell.experiment.run_id
        self.running[run_id] = cell
        self._begun[run_id] = time.monotonic()
        if continued:
            self._continued.add(run_id)

    def lost(self, run_id: str) -> Cell:
        """A run's node is gone; the run is taken up again."""
        cell = self.running.pop(run_id)
        where = ", ".join(cell.values.values())
        self.console.print(Text(f"{where}: its node is lost, it goes on elsewhere"), soft_wrap=True)
        return cell

    def end(self, run_id: str, status: str, error: str) -> None:
        """A run ended."""
        cell = self.running.pop(run_id)
        seconds = time.monotonic() - self._begun[run_id]
        self._ended.add(run_id)
        self._failed += status == "failed"
        if status == "finished" and run_id not in self._continued:
            self._took, self._expected = self._took + seconds, self._expected + self.seconds[run_id]
        where = ", ".join(cell.values.values())
        how = f"failed: {error}" if status == "failed" else f"{status}, {self._accuracy(run_id)}"
        self.console.print(
            Text(
                f"({len(self._ended)} of {len(self.seconds)}) {where}: {how}, {seconds:.0f} s"
                f"; {duration(self.left())} left"
            ),
            soft_wrap=True,
        )

    def left(self) -> float:
        """Seconds to the end, about: the estimate, corrected by the runs that were whole."""
        pace = self._took / self._expected if self._expected else 1.0
        open_ = [
            seconds * self._open_share(run_id)
            for run_id, seconds in self.seconds.items()
            if run_id not in self._ended
        ]
        return pace * max(sum(open_) / self.slots, max(open_, default=0.0))

    def _open_share(self, run_id: str) -> float:
        """How much of a run is to come."""
        state, cell = self.states.get(run_id), self.running.get(run_id)
        return 1.0 if state is None or cell is None else 1 - state.rounds / cell.experiment.rounds

    def _accuracy(self, run_id: str) -> str:
        state = self.states.get(run_id, State())
        if state.accuracy is None:
            return f"{state.rounds} rounds"
        return f"{state.rounds} rounds, validation accuracy {state.accuracy:.4f}"

    def _drawn(self) -> RenderableType:
        table = Table()
        for heading in (*self.axes, "round", "accuracy", "s"):
            table.add_column(heading, justify="left" if heading in self.axes else "right")
        for run_id, cell in list(self.running.items())[:SHOWN]:
            state = self.states.get(run_id, State())
            shown = "-" if state.accuracy is None else f"{state.accuracy:.4f}"
            seconds = time.monotonic() - self._begun[run_id]
            cells = [cell.values.get(axis, "") for axis in self.axes]
            rounds = f"{state.rounds} of {cell.experiment.rounds}"
            table.add_row(*cells, rounds, shown, f"{seconds:.0f}")
        failed = f", {self._failed} failed" if self._failed else ""
        counted = f"{len(self._ended)} of {len(self.seconds)} runs ended{failed}"
        return Group(table, Text(f"{counted}; about {duration(self.left())} left"))


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as one reads them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
