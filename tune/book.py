"""Which trials a search has begun and ended: one small file a trial, whole or not there.

Ray Tune's own snapshot is taken every ten seconds or so and is not written whole, so that a kill can lose
trials that had ended, or the snapshot. So a trial is booked before it begins; after a kill the same
points are suggested again in the same order, under the same numbers, and what the results hold of them is
not run again.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from spatl_ray.errors import ConfigError, ResultsError
from spatl_ray.places import check_place, write_whole
from tune.space import Point, Space
from tune.study import Study

BEGUN, ENDED, FAILED = "begun", "ended", "failed"

FIELDS = {
    "trial": (str, "text"),
    "point": (dict, "a mapping"),
    "status": (str, "text"),
    "error": (str | None, "text or null"),
}
"""What the file of a trial holds."""


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
            ResultsError: another process has it, or its file is damaged.
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
        check_place(self.folder / "lock", "results.folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ResultsError(f"search {study.sweep_id!r} is run by another process") from error
        if resume:
            self._refuse_another(study, _study_in(path))
        else:
            write_whole(path, study.to_json().encode())
        return lock

    def asked(self, trials: int | None, default: int) -> int:
        """How many trials the search is to have, noted for when it goes on.

        Args:
            trials: as asked for now, or None for as many as before.
            default: of a search that never was told.

        Raises:
            ResultsError: the note is damaged.
        """
        path = self.folder / "asked"
        if trials is None:
            trials = _number_in(path) if path.exists() else default
        write_whole(path, str(trials).encode())
        return trials

    def entries(self) -> list[Entry]:
        """All trials that were begun, by number; files that are no trial's are left alone.

        Raises:
            ResultsError: a trial's file is damaged.
        """
        paths = [path for path in (self.folder / "trials").glob("t*.json") if _is_trial(path.stem)]
        return [_entry_in(path) for path in sorted(paths, key=lambda path: number_of(path.stem))]

    def check(self, space: Space, entries: Sequence[Entry]) -> None:
        """Refuse trials that are not in the search's space.

        Raises:
            ResultsError: there is such a trial.
        """
        for entry in entries:
            if not space.holds(entry.point):
                rule = "have a point of the space"
                raise _damaged(self._path(entry.trial), rule, repr(entry.point))

    def entry(self, trial: str) -> Entry | None:
        """A trial, if it was begun.

        Raises:
            ResultsError: its file is damaged.
        """
        path = self._path(trial)
        return _entry_in(path) if path.exists() else None

    def write(self, entry: Entry) -> None:
        """Book a trial, or what became of it."""
        write_whole(self._path(entry.trial), json.dumps(asdict(entry)).encode())

    def _path(self, trial: str) -> Path:
        return self.folder / "trials" / f"{trial}.json"

    def _refuse_another(self, study: Study, before: Study) -> None:
        now, then = _comparable(study), _comparable(before)
        others = [name for name in now if now[name] != then[name]]
        if others:
            raise ConfigError(
                [
                    f"--resume must go on with the same search {study.sweep_id!r}, got another {name}: "
                    f"{_cut(repr(now[name]))} instead of {_cut(repr(then[name]))}"
                    for name in others
                ]
            )


def trial_id(number: int) -> str:
    """The name of a trial in the results."""
    return f"t{number:03d}"


def number_of(trial: str) -> int:
    """The number in a trial's name."""
    return int(trial[1:])


def _is_trial(name: str) -> bool:
    """Whether it is what `trial_id` gives."""
    return re.fullmatch(r"t\d{3,}", name) is not None and trial_id(number_of(name)) == name


def _mapping_in(path: Path) -> dict[str, Any]:
    """What a file of the book holds.

    Raises:
        ResultsError: it cannot be read, or is no JSON mapping.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, "be JSON that can be read", str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, "hold a mapping", repr(found))
    return found


def _entry_in(path: Path) -> Entry:
    """A trial's file."""
    found = _mapping_in(path)
    if found.keys() != FIELDS.keys():
        raise _damaged(path, f"hold {', '.join(FIELDS)}", ", ".join(found) or "nothing")
    for name, (kind, rule) in FIELDS.items():
        if not isinstance(found[name], kind):
            raise _damaged(path, f"have {rule} as {name}", repr(found[name]))
    if found["trial"] != path.stem:
        raise _damaged(path, f"be of trial {path.stem!r}", repr(found["trial"]))
    if found["status"] not in (BEGUN, ENDED, FAILED):
        raise _damaged(path, f"have status {BEGUN}, {ENDED} or {FAILED}", repr(found["status"]))
    return Entry(**found)


def _study_in(path: Path) -> Study:
    """A search's file."""
    found = _mapping_in(path)
    try:
        return Study.from_fields(found)
    except (TypeError, KeyError) as error:
        raise _damaged(path, "hold a search of this version", str(error)) from error


def _number_in(path: Path) -> int:
    """The file with the number of trials."""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not (text.isascii() and text.isdigit() and int(text)):
        raise _damaged(path, "hold a number of trials", repr(text))
    return int(text)


def _damaged(path: Path, rule: str, got: str) -> ResultsError:
    return ResultsError(f"{path} must {rule}, got {_cut(got)}; it is damaged")


def _comparable(study: Study) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = json.loads(study.to_json())
    return fields


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
