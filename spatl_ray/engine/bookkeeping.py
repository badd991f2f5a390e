"""What a results folder knows of a run beside its tables: where it began, and what it has.

RESULTS/bookkeeping/run_id=RUN/origin.json   where results and relative folders lay when it began
                               checkpointed  see `spatl_ray.engine.checkpoint_mark`
                               lock          see `spatl_ray.engine.lock`
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from spatl_ray.addresses import full_name, working_folder
from spatl_ray.config import Experiment
from spatl_ray.errors import ResultsError
from spatl_ray.places import write_whole


@dataclass(frozen=True)
class Origin:
    """Where a run began.

    Attributes:
        results: its results folder then, or its address; what lies elsewhere is named after it.
        working: the folder that relative ones started from.
    """

    results: str
    working: str


def bookkeeping(results: Path, run_id: str) -> Path:
    """Where this lies for a run."""
    return results.absolute() / "bookkeeping" / f"run_id={run_id}"


def origin_of(experiment: Experiment) -> Origin:
    """Where a run began; for one that has not yet, here.

    Raises:
        ResultsError: what is written of it is damaged.
    """
    path = _of(experiment) / "origin.json"
    try:
        return Origin(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return _here(experiment)
    except (OSError, ValueError, TypeError) as error:
        raise ResultsError(f"{path} must say where the run began, got {error}") from error


def note_origin(experiment: Experiment) -> None:
    """A run begins here.

    Raises:
        ResultsError: it cannot be written.
    """
    path = _of(experiment) / "origin.json"
    try:
        write_whole(path, json.dumps(asdict(_here(experiment))).encode())
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from error


def _of(experiment: Experiment) -> Path:
    return bookkeeping(working_folder(experiment.results.folder), experiment.run_id)


def _here(experiment: Experiment) -> Origin:
    return Origin(full_name(experiment.results.folder), str(Path.cwd()))
