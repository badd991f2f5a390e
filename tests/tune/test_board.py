"""How long a sweep still takes, as its board tells it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tune import board
from tune.board import View
from tune.grid import Cell, read_grid
from tune.tasks import State

GRID = """
name: small
experiment: demo
fixed: {rounds: 10}
grid: {seed: [0, 1, 2, 3]}
"""


class Clock:
    """Seconds that the test says have passed."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(board, "time", found)
    return found


@pytest.fixture
def cells(tmp_path: Path) -> tuple[Cell, ...]:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID, encoding="utf-8")
    return read_grid(str(path)).cells


def view_of(cells: tuple[Cell, ...], slots: int = 1) -> View:
    seconds = {cell.experiment.run_id: 10.0 for cell in cells}
    return View(Console(file=io.StringIO(), width=200), ("seed",), seconds, slots)


def end_after(
    view: View, clock: Clock, cell: Cell, seconds: float, status: str = "finished"
) -> None:
    view.begin(cell)
    clock.now += seconds
    view.end(cell.experiment.run_id, status, "the disk is full")


def test_what_is_left_follows_the_pace_of_whole_runs(clock: Clock, cells: tuple[Cell, ...]) -> None:
    view = view_of(cells)
    assert view.left() == 40
    end_after(view, clock, cells[0], 20)  # twice as long as was thought
    assert view.left() == 2 * 30
    view.begin(cells[1])
    view.states = {cells[1].experiment.run_id: State(rounds=4)}
    assert view.left() == pytest.approx(2 * (6 + 20))


def test_runs_that_failed_say_nothing_about_the_pace(clock: Clock, cells: tuple[Cell, ...]) -> None:
    view = view_of(cells)
    end_after(view, clock, cells[0], 0.1, "failed")
    assert view.left() == 30
    end_after(view, clock, cells[1], 20)
    assert view.left() == 2 * 20


def test_runs_that_went_on_say_nothing_about_the_pace(
    clock: Clock, cells: tuple[Cell, ...]
) -> None:
    view = view_of(cells)
    view.begin(cells[0], continued=True)
    clock.now += 1
    view.end(cells[0].experiment.run_id, "finished", "")
    assert view.left() == 30


def test_no_sweep_is_shorter_than_its_longest_run(clock: Clock, cells: tuple[Cell, ...]) -> None:
    assert view_of(cells, slots=2).left() == 20
    assert view_of(cells, slots=16).left() == 10
    assert view_of((), slots=2).left() == 0
