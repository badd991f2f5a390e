"""Runs that are broken off, and their undisturbed siblings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from identity import small

from spatl_ray import run
from spatl_ray.callbacks import Callback, Row
from spatl_ray.config import Experiment

ALGORITHMS: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "scaffold": {"name": "scaffold"},
    "agent": {"name": "spatl", "agent": {"episodes": 3, "participations": 1}},
}
ROUNDS = 6


def experiment_of(folder: Path, name: str, **fields: Any) -> Experiment:
    """Six rounds with a checkpoint after each of them, or as `fields` say."""
    checkpoints = {"seconds": 0.0, **fields.pop("checkpoints", {})}
    engine = {"backend": "serial", **fields.pop("engine", {})}
    fields = {"rounds": ROUNDS, "checkpoints": checkpoints, "engine": engine, **fields}
    return small(folder, ALGORITHMS[name], **fields)


class Stop(Callback):
    """Ends the run after a round, as Ctrl-C does or as an error."""

    def __init__(self, round_: int, problem: BaseException) -> None:
        self._round, self._problem = round_, problem

    def round_ended(self, row: Row) -> None:
        if row["round"] == self._round:
            raise self._problem


class Watch(Callback):
    """Notes which rounds were run."""

    def __init__(self) -> None:
        self.rounds: list[Any] = []
        self.events: list[Row] = []

    def round_ended(self, row: Row) -> None:
        self.rounds.append(row["round"])

    def event(self, row: Row) -> None:
        self.events.append(row)


HISTORY = ("resumed", "recovered", "damaged checkpoint", "fewer workers", "no mirror")
"""Events that tell that a run was broken off, or what it lost."""


def without_history(found: dict[str, Any]) -> dict[str, Any]:
    """All but the events that tell that the run was broken off; the others each as one text."""
    rest = {name: value for name, value in found.items() if not name.startswith("events.")}
    columns = [found.get(f"events.{name}", []) for name in ("round", "client", "kind", "message")]
    events = [
        (*(None if pd.isna(number) else int(number) for number in numbers), kind, message)
        for *numbers, kind, message in zip(*columns, strict=True)
        if kind not in HISTORY
    ]
    return {**rest, "events": np.array([repr(event) for event in events], dtype=object)}


def broken_off(experiment: Experiment, after: int) -> None:
    with pytest.raises(RuntimeError, match="the power is gone"):
        run(experiment, callbacks=[Stop(after, RuntimeError("the power is gone"))])


def has_begun(folder: Path) -> bool:
    """Whether a run in this folder of its own stands in table `runs`."""
    return any((folder / "runs").rglob("*.parquet"))


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from broken_off import experiment_of, has_begun
from spatl_ray import resume, run
experiment = experiment_of(Path({folder!r}), {name!r}, **{fields!r})
if has_begun(Path({folder!r})):
    resume(Path({folder!r}), experiment.run_id)
else:
    run(experiment)
"""


def started_or_resumed(
    folder: Path, name: str, fields: Mapping[str, Any]
) -> subprocess.Popen[bytes]:
    """A process that runs an experiment, or goes on with it if it began before."""
    code = KILLED.format(paths=sys.path, folder=str(folder), name=name, fields=dict(fields))
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
