"""Which trials a search has begun and ended: one small file a trial, whole or not there.

Ray Tune's own snapshot is taken every ten seconds or so and is not written whole, so that a kill can lose
trials that had ended, or the snapshot. So a trial is booked before it begins; after a kill the same
points are suggested again in the same order, under the same numbers, and what the results hold of them is
not run again.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from spatl_ray.errors import ConfigError, ResultsError
from spatl_ray.places import write_whole
from tune.space import Point
from tune.study import Study

BEGUN, ENDED, FAILED = "begun", "ended", "failed"


@dataclass(frozen=True)
class Entry:
    """A trial.

    Attributes:
        trial: its id.
        point: where it is in the space; under PBT, now.
        status: begun, ended (also if a scheduler stopped it) or failed.
        error: why it failed.
    """

    trial: str
    point: Point
    status: str = BEGUN
    error: str | None = None


class Book:
    """The trials of a search.

    Args:
        folder: of the search.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, study: Study, resume: bool) -> IO[str]:
        """Begin a search, or go on with it; this process alone, as long as it keeps the file open.

        Raises:
            ConfigError: there is such a search already (or none, to be resumed), or it is another one.
            ResultsError: another process has it.
        """
        path = self.folder / "study.json"
        if resume and not path.exists():
            raise ConfigError(
                f"--resume needs a search {study.sweep_id!r}, got none in {self.folder}"
            )
        if not resume and path.exists():
            raise ConfigError(
                f"search {study.sweep_id!r} is already in {self.folder}: take --resume to go on with it, "
                "or another --name"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ResultsError(f"search {study.sweep_id!r} is run by another process") from error
        if resume:
            self._refuse_another(study, Study.from_json(path.read_text(encoding="utf-8")))
        else:
            write_whole(path, study.to_json().encode())
        return lock

    def asked(self, trials: int | None, default: int) -> int:
        """How many trials the search is to have, noted for when it goes on.

        Args:
            trials: as asked for now, or None for as many as before.
            default: of a search that never was told.
        """
        path = self.folder / "asked"
        if trials is None:
            trials = int(path.read_text(encoding="utf-8")) if path.exists() else default
        write_whole(path, str(trials).encode())
        return trials

    def entries(self) -> list[Entry]:
        """All trials that were begun, by number."""
        paths = sorted(
            (self.folder / "trials").glob("t*.json"), key=lambda path: number_of(path.stem)
        )
        return [Entry(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]

    def entry(self, trial: str) -> Entry | None:
        """A trial, if it was begun."""
        path = self._path(trial)
        return Entry(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def write(self, entry: Entry) -> None:
        """Book a trial, or what became of it."""
        write_whole(self._path(entry.trial), json.dumps(entry.__dict__).encode())

    def _path(self, trial: str) -> Path:
        return self.folder / "trials" / f"{trial}.json"

    def _refuse_another(self, study: Study, before: Study) -> None:
        now, then = _comparable(study), _comparable(before)
        others = [name for name in now if now[name] != then[name]]
        if others:
            raise ConfigError(
                [
                    f"--resume must go on with the same search {study.sweep_id!r}, got another {name}: "
                    f"{_short(now[name])} instead of {_short(then[name])}"
                    for name in others
                ]
            )


def trial_id(number: int) -> str:
    """The name of a trial in the results."""
    return f"t{number:03d}"


def number_of(trial: str) -> int:
    """The number in a trial's name."""
    return int(trial[1:])


def _comparable(study: Study) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = json.loads(study.to_json())
    return fields


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
