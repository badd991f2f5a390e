"""Runs of a sweep as Ray tasks, and the board on which they write how far they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from spatl_ray.callbacks import Callback, Row
from spatl_ray.config import Experiment
from spatl_ray.errors import SpatlError
from tune.objectives import figures
from tune.resources import bundles


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        rounds: that have ended.
        accuracy: on validation data, as of the last evaluation; None before.
    """

    rounds: int = 0
    accuracy: float | None = None


@ray.remote(num_cpus=0)
class Board:
    """Holds how far each run is, for whoever looks."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}

    def put(self, run_id: str, state: State) -> None:
        """Write how far a run is."""
        self._states[run_id] = state

    def take(self) -> dict[str, State]:
        """All of it."""
        return self._states


def make_board() -> Any:
    """A board where this process is: another node may be lost before the sweep ends."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Board.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


class _Tells(Callback):
    """Writes to the board, after every round.

    Args:
        run_id: of the run.
        board: the actor.
    """

    def __init__(self, run_id: str, board: Any) -> None:
        self._run_id, self._board = run_id, board
        self._accuracy: float | None = None

    def round_ended(self, row: Row) -> None:
        """Tell the round."""
        found = figures(row)
        if found["accuracy"] == found["accuracy"]:  # not NaN
            self._accuracy = found["accuracy"]
        self._board.put.remote(self._run_id, State(int(found["rounds"]), self._accuracy))


def carried_out(
    experiment: Experiment, paths: Sequence[str], board: Any, continued: bool, here: Path
) -> tuple[str, str]:
    """Run an experiment, or go on with it; how it ended, and the error if it failed."""
    from spatl_ray.engine.actors import extend_path
    from tune.going_on import begin, enter, go_on

    extend_path(paths)
    tells = (_Tells(experiment.run_id, board),)
    try:
        enter(here)
        if continued:
            return go_on(experiment, tells, here).status, ""
        return begin(experiment, tells).status, ""
    except SpatlError as error:
        return "failed", str(error)


@dataclass(frozen=True)
class Started:
    """A run that was given to Ray.

    Attributes:
        reference: of how it will have ended.
        group: what is reserved for it.
    """

    reference: Any
    group: Any

    def release(self) -> None:
        """Give back what was reserved."""
        remove_placement_group(self.group)


def start(experiment: Experiment, paths: Sequence[str], board: Any, continued: bool) -> Started:
    """Give a run to Ray, with the resources for it and for the actors that it starts."""
    wanted = [bundle for bundle in bundles(experiment) if bundle]
    group = placement_group(wanted, strategy="PACK")
    own = wanted[0] if experiment.engine.backend == "serial" else {}
    strategy = PlacementGroupSchedulingStrategy(
        placement_group=group, placement_group_capture_child_tasks=True
    )
    task: Any = ray.remote(carried_out)
    options = task.options(
        num_cpus=own.get("CPU", 0.0),
        num_gpus=own.get("GPU", 0.0),
        max_retries=0,
        scheduling_strategy=strategy,
    )
    given = (experiment, tuple(paths), board, continued, Path.cwd())
    return Started(options.remote(*given), group)
