"""Run a factorial grid of experiments; what has finished is skipped, what broke off goes on.

python tune/sweep.py GRID [key=value ...] [--dry-run] [--retry-failed] [--address A]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

if not __package__:
    # Instead of this folder, whose modules have names of their own only within the package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spatl_ray.results.reader import read_run, run_ids
from tune.command import carried_out, console, positive
from tune.grid import Cell, Grid, described, read_grid

NEW, FINISHED, FAILED, BROKEN_OFF = "new", "finished", "failed", "broken off"

LOST = "lost"
"""What became of a run whose node is gone."""

MOST_LOSSES = 3
"""How often a run is taken up again after its node was lost, as a spot machine may be."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = _parser().parse_intermixed_args(argv)
    sys.path.append(os.getcwd())  # own parts of an experiment; last, so that they hide nothing
    return carried_out(lambda: sweep(arguments, console()), "the same command goes on")


def sweep(arguments: argparse.Namespace, console: Console) -> int:
    """Say what there is to do and what it costs, do it, and list what failed."""
    grid = read_grid(arguments.grid, arguments.overrides)
    before = statuses(grid.cells)
    todo = [cell for cell in grid.cells if _is_due(before[_id(cell)], arguments.retry_failed)]
    counts = {
        status: list(before.values()).count(status)
        for status in (NEW, BROKEN_OFF, FINISHED, FAILED)
    }
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    console.print(Text(f"sweep {grid.name}: {len(grid.cells)} runs: {told}"), soft_wrap=True)
    if arguments.dry_run:
        console.print(_plan(grid, before))
    if todo:
        _do(grid, todo, before, arguments, console)
    tried = () if arguments.dry_run else [_id(cell) for cell in todo]
    return _list_failed(grid, tried, console)


def statuses(cells: Sequence[Cell]) -> dict[str, str]:
    """What the results hold of each run, by its id.

    Raises:
        ResultsError: they cannot be read.
    """
    there = {folder: set(run_ids(folder)) for folder in {_folder(cell) for cell in cells}}
    return {_id(cell): _status(cell, there[_folder(cell)]) for cell in cells}


def _status(cell: Cell, there: set[str]) -> str:
    if _id(cell) not in there:
        return NEW
    status = str(read_run(_folder(cell), _id(cell))["status"])
    return status if status in (FINISHED, FAILED) else BROKEN_OFF


def _is_due(status: str, retries: bool) -> bool:
    return status in (NEW, BROKEN_OFF) or (status == FAILED and retries)


def _do(
    grid: Grid,
    todo: Sequence[Cell],
    before: Mapping[str, str],
    arguments: argparse.Namespace,
    console: Console,
) -> None:
    """Estimate, and run unless it is dry."""
    from tune.estimate import kind_of, paces
    from tune.resources import at_once, bundles, cluster

    for cell in todo:
        bundles(cell.experiment)  # refuses what cannot be placed
    seconds = {_id(cell): 1.0 for cell in todo}
    if not arguments.no_estimate:
        known = paces(
            todo, lambda text: console.print(Text(f"measuring {text} ..."), soft_wrap=True)
        )
        seconds = {_id(c): known[kind_of(c.experiment)].seconds(c.experiment) for c in todo}
    if arguments.dry_run and not arguments.address:
        here = [{"CPU": float(os.cpu_count() or 1)}]
        slots = arguments.parallel or min(at_once(cell.experiment, here) for cell in todo)
        _tell_cost(todo, seconds, slots, arguments, console)
        return
    with cluster(arguments.address) as there:
        slots = arguments.parallel or min(at_once(cell.experiment, there) for cell in todo)
        _tell_cost(todo, seconds, slots, arguments, console)
        if not arguments.dry_run:
            _run_all(grid, todo, before, seconds, slots, console)


def _tell_cost(
    todo: Sequence[Cell],
    seconds: Mapping[str, float],
    slots: int,
    arguments: argparse.Namespace,
    console: Console,
) -> None:
    from tune.board import duration

    rounds = sum(cell.experiment.rounds for cell in todo)
    clients = sum(cell.experiment.rounds * cell.experiment.asked_size for cell in todo)
    text = f"to do: {len(todo)} runs, {rounds} rounds, {clients} client rounds"
    if not arguments.no_estimate:
        whole = sum(seconds.values())
        longest = max(seconds.values())
        text += f"; about {duration(whole)} of one process, with {slots} at once about "
        text += duration(max(whole / min(slots, len(todo)), longest))
    console.print(Text(text), soft_wrap=True)


def _run_all(
    grid: Grid,
    todo: Sequence[Cell],
    before: Mapping[str, str],
    seconds: Mapping[str, float],
    slots: int,
    console: Console,
) -> None:
    """All runs, so many at once, longest first."""
    import ray

    from tune.board import View
    from tune.tasks import Started, make_board, start

    board = make_board()
    losses: Counter[str] = Counter()
    waiting = sorted(todo, key=lambda cell: -seconds[_id(cell)])
    started: dict[str, Started] = {}
    with View(console, grid.axes, seconds, slots) as view:
        while waiting or started:
            while waiting and len(started) < slots:
                cell = waiting.pop(0)
                now = statuses([cell]) if losses[_id(cell)] else before
                continued = now[_id(cell)] != NEW
                started[_id(cell)] = start(cell.experiment, sys.path, board, continued)
                view.begin(cell, continued)
            references = [each.reference for each in started.values()]
            ended, _ = ray.wait(references, num_returns=1, timeout=1.0)
            view.states = ray.get(board.take.remote())
            for run_id in [name for name, each in started.items() if each.reference in ended]:
                task = started.pop(run_id)
                task.release()
                status, error = _outcome(task.reference)
                losses[run_id] += status == LOST
                if status == LOST and losses[run_id] <= MOST_LOSSES:
                    waiting.insert(0, view.lost(run_id))
                else:
                    view.end(run_id, FAILED if status == LOST else status, error)


def _outcome(reference: object) -> tuple[str, str]:
    """How a run ended, and why if it failed."""
    import ray
    from ray.exceptions import NodeDiedError, RayError

    try:
        status, error = ray.get(reference)  # type: ignore[call-overload]
        return str(status), str(error)
    except RayError as problem:
        lines = str(problem).strip().splitlines()
        status = LOST if isinstance(problem, NodeDiedError) else FAILED
        return status, lines[-1] if lines else type(problem).__name__


def _plan(grid: Grid, before: Mapping[str, str]) -> Table:
    """Every run with what there is of it."""
    table = Table(title=f"sweep {grid.name}")
    for heading in (*grid.axes, "run", "status"):
        table.add_column(heading, overflow="fold")
    for cell in grid.cells:
        table.add_row(
            *(cell.values.get(axis, "") for axis in grid.axes), _id(cell), before[_id(cell)]
        )
    return table


def _list_failed(grid: Grid, tried: Collection[str], console: Console) -> int:
    """The runs that have failed, with their errors; 1 if there is one.

    Of those that were tried now, a process may have died without a word.
    """
    after = statuses(grid.cells)
    failed = [cell for cell in grid.cells if after[_id(cell)] == FAILED]
    lost = [name for name in tried if after[name] in (NEW, BROKEN_OFF)]
    for cell in failed:
        error = read_run(_folder(cell), _id(cell))["error"]
        console.print(Text(f"failed: {_id(cell)}: {error}"), soft_wrap=True)
    for name in lost:
        told = f"did not end: {name} is {after[name]}; the same command goes on with it"
        console.print(Text(told), soft_wrap=True)
    if failed:
        console.print(
            Text(f"{len(failed)} failed; --retry-failed goes on with them"), soft_wrap=True
        )
    return 1 if failed or lost else 0


def _id(cell: Cell) -> str:
    return cell.experiment.run_id


def _folder(cell: Cell) -> Path:
    return Path(cell.experiment.results.folder)


def _parser() -> argparse.ArgumentParser:
    known = "; ".join(f"{name}: {text}" for name, text in described().items())
    parser = argparse.ArgumentParser(
        prog="python tune/sweep.py",
        description="Run a factorial grid of experiments.",
        epilog=f"Grids that come along: {known}.",
    )
    add = parser.add_argument
    add("grid", metavar="GRID", help="a YAML file, or the name of a grid that comes along")
    add(
        "overrides",
        metavar="key=value",
        nargs="*",
        help="of all runs, or instead of an axis' values",
    )
    add("--dry-run", action="store_true", help="say what would be run and what it would cost")
    add("--no-estimate", action="store_true", help="do not measure what runs cost")
    add("--retry-failed", action="store_true", help="go on with failed runs, too")
    add(
        "--parallel",
        metavar="N",
        type=positive,
        help="runs at once; by default what the cluster holds",
    )
    add("--address", metavar="A", help="of a running Ray cluster; by default Ray is started here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
