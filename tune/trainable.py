"""A trial: one run, told to Ray Tune an evaluation at a time, in an actor that later trials use again."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from spatl_ray.callbacks import Row
from spatl_ray.config import Experiment
from spatl_ray.engine.branch import pack, unpack
from spatl_ray.errors import EngineError
from spatl_ray.results.reader import read_rounds, read_run, run_ids
from spatl_ray.results.writer import ResultsWriter
from tune.book import ENDED, Book, Entry, trial_id
from tune.going_on import begin, enter, go_on
from tune.objectives import ROUNDS, figures, told
from tune.space import Point
from tune.stepped import SteppedRun
from tune.study import PBT, Study

KEPT = 4
"""Packed states of a trial that stay: a clone may still be made of one that is not the last."""


@dataclass(frozen=True)
class Plan:
    """What all trials of a search share.

    Attributes:
        study: the search.
        folder: of the search.
        numbers: of the trials that the scheduler itself names, in its order.
        paths: where own modules are found.
        here: the folder whose modules are the user's own.
    """

    study: Study
    folder: Path
    numbers: tuple[int, ...]
    paths: tuple[str, ...]
    here: Path


class TrialRun(Trainable):
    """A run of this package as Ray Tune's class Trainable."""

    _plan: Plan
    _book: Book
    _trial: str
    _point: Point
    _experiment: Experiment
    _recorded: deque[Row]
    """Rows that are told again, before any that is new."""
    _run: SteppedRun | None = None
    _told: int = 0
    """Rounds up to the last row that was told."""
    _is_over: bool = False
    """Whether nothing comes after the recorded rows."""
    _is_broken_off: bool = False
    """Whether the run goes on from its last checkpoint."""

    def setup(self, config: dict[str, Any], plan: Plan) -> None:  # type: ignore[override]
        """Take the search in, and the first trial."""
        from spatl_ray.engine.actors import extend_path

        extend_path(plan.paths)
        enter(plan.here)
        self._plan = plan
        self._book = Book(plan.folder)
        self._open(config["point"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial, in the same process."""
        self.cleanup()
        self._open(new_config["point"])
        return True

    def cleanup(self) -> None:
        """End the run; what it has written stays."""
        if self._run is not None:
            self._run.stop()
            self._run = None

    def step(self) -> dict[str, Any]:
        """Go on to the next evaluation."""
        if self._is_broken_off:
            self._go_on()
        row = self._recorded.popleft() if self._recorded else self._live()
        self._told = int(figures(row)[ROUNDS])
        ended = self._told == self._experiment.rounds
        done = ended or (self._is_over and not self._recorded)
        return {**told(row, self._plan.study.objectives), "done": done}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, str]:
        """Pack what the run has on the disk, after the last row that was told."""
        if self._run is None:
            raise EngineError(f"trial {self._trial} must have trained to be saved")
        self._run.park()
        packs = self._plan.folder / "packs" / self._trial
        folder = packs / f"{self._told:06d}-{self._experiment.config_hash}"
        shutil.rmtree(folder, ignore_errors=True)
        pack(self._experiment, folder)
        for old in sorted(packs.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return {"folder": str(folder)}

    def load_checkpoint(self, checkpoint: dict[str, str] | None) -> None:
        """Go on from there, under this trial's own settings."""
        if checkpoint is None:
            raise EngineError(
                f"trial {self._trial} must be given what `save_checkpoint` told, got None"
            )
        self.cleanup()
        unpack(Path(checkpoint["folder"]), self._experiment)
        self._book.write(Entry(self._trial, self._point))
        self._is_over, self._is_broken_off, self._recorded = False, False, deque()
        self._run = self._resumed()

    def _open(self, point: Point) -> None:
        """Take up a trial, with what the results hold of it."""
        study = self._plan.study
        self._run = None
        self._point = {key: value for key, value in point.items() if key != "trial"}
        self._trial = point.get("trial") or trial_id(self._number())
        self._experiment = study.experiment(self._trial, self._point)
        self._told = 0
        self._is_over, self._is_broken_off = False, False
        self._recorded = deque()
        row = recorded_run(self._experiment)
        if row is None:
            return
        entry = self._book.entry(self._trial)
        is_finished = row["status"] == "finished"
        self._is_over = is_finished or (entry is not None and entry.status == ENDED)
        rows = evaluated(self._experiment)
        if study.scheduler == PBT:  # decided on already
            rows = rows[-1:] if self._is_over else []
        self._recorded.extend(rows)
        self._is_broken_off = not self._is_over

    def _number(self) -> int:
        """The number of a trial that the scheduler named: its names end with their place."""
        return self._plan.numbers[int(self.trial_id.rpartition("_")[2])]

    def _go_on(self) -> None:
        """A run that was broken off: the next live row says which of the recorded ones stay."""
        self._is_broken_off = False
        self._run = self._resumed()
        live = self._run.next()
        before = [row for row in self._recorded if figures(row)[ROUNDS] < figures(live)[ROUNDS]]
        self._recorded = deque([*before, live])

    def _live(self) -> Row:
        if self._run is None:
            experiment = self._experiment
            self._run = SteppedRun(experiment, lambda gate: begin(experiment, (gate,)))
        return self._run.next()

    def _resumed(self) -> SteppedRun:
        experiment, here = self._experiment, self._plan.here
        return SteppedRun(experiment, lambda gate: go_on(experiment, (gate,), here))


def recorded_run(experiment: Experiment) -> Mapping[str, Any] | None:
    """A run's row of table `runs`, if it was begun."""
    folder = Path(experiment.results.folder)
    if experiment.run_id not in run_ids(folder):
        return None
    return read_run(folder, experiment.run_id)


def evaluated(experiment: Experiment) -> list[dict[str, Any]]:
    """The recorded rows of rounds after which a run was evaluated."""
    every, rounds = experiment.evaluation.every, experiment.rounds
    rows = read_rounds(Path(experiment.results.folder), experiment.run_id)
    return [row for row in rows if (row["round"] + 1) % every == 0 or row["round"] + 1 == rounds]


def close_results(folder: Path, runs: Sequence[str]) -> None:
    """Write the end of runs that their process did not live to write.

    Raises:
        ResultsError: a run cannot be read or written.
    """
    for run_id in runs:
        row = read_run(folder, run_id)
        if row["status"] != "running":
            continue
        rows = read_rounds(folder, run_id)
        after = rows[-1]["round"] + 1 if rows else 0
        writer = ResultsWriter(folder, run_id, resume_at=after)
        own = ("start", "end", "status", "error")
        writer.start({name: value for name, value in row.items() if name not in own})
        writer.finish("interrupted")
