"""A run that goes on from another run's checkpoint, under other settings.

What a run has on the disk is copied into a folder of its own, and from there to the places of a run with
another config: its rows so far, its clients' states and its newest checkpoint. That run is then resumed.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from spatl_ray.config import Experiment
from spatl_ray.engine.checkpoint import Checkpoint, Checkpoints
from spatl_ray.engine.folders import checkpoint_folder, state_folder
from spatl_ray.errors import ConfigError, StateError
from spatl_ray.results import files
from spatl_ray.results.columns import build
from spatl_ray.results.schema import TABLES

CHANGEABLE = (
    "training.lr",
    "training.momentum",
    "training.weight_decay",
    "algorithm.server_lr",
    "algorithm.mu",
)
"""Fields that may change in the middle of a run: no state has its shape from them."""

PIECE = 2**20
"""Bytes that are copied at once."""

_FREE = ("name", "results", "checkpoints")
"""What decides neither a number nor where a process runs."""


def pack(experiment: Experiment, folder: Path) -> None:
    """Copy what a run has on the disk; it must stand still meanwhile.

    Args:
        experiment: of the run; its checkpoints lie in a local folder.
        folder: where the copy goes.

    Raises:
        StateError: the run has no checkpoint yet.
    """
    results, run_id = Path(experiment.results.folder).absolute(), experiment.run_id
    if not Checkpoints(checkpoint_folder(experiment), 1).rounds():
        raise StateError(f"run {run_id!r} must have a checkpoint to be branched off, got none")
    for table in TABLES:
        _copy(files.run_folder(results, table, run_id), folder / table)
    _copy(Path(checkpoint_folder(experiment)), folder / "checkpoints")
    _copy(state_folder(experiment), folder / "states")
    (folder / "experiment.json").write_text(experiment.model_dump_json(), encoding="utf-8")


def unpack(folder: Path, experiment: Experiment) -> None:
    """Make a packed run one of another experiment, to be resumed; a run of that id is replaced.

    Args:
        folder: where `pack` put it.
        experiment: differs from the packed one in `CHANGEABLE` fields only.

    Raises:
        ConfigError: it differs in others.
        StateError: no checkpoint is whole.
    """
    before = Experiment.model_validate_json((folder / "experiment.json").read_text("utf-8"))
    _refuse_others(before, experiment)
    checkpoint, faults = Checkpoints(str(folder / "checkpoints"), 1).newest()
    if checkpoint is None:
        raise StateError(f"{folder} must hold a whole checkpoint, got {'; '.join(faults)}")
    results, run_id = Path(experiment.results.folder).absolute(), experiment.run_id
    row = _row(folder, experiment)
    for table in TABLES:
        place = files.run_folder(results, table, run_id)
        files.remove(place)
        if table != "runs":
            _copy(folder / table, place)
    states = state_folder(experiment)
    shutil.rmtree(states, ignore_errors=True)
    _copy(folder / "states", states)
    target = Checkpoints(checkpoint_folder(experiment), experiment.checkpoints.keep)
    target.clear()
    facts = {**checkpoint.facts, "run_id": run_id}
    target.save(Checkpoint(checkpoint.round, checkpoint.server, checkpoint.driver, facts))
    place = files.round_file(files.run_folder(results, "runs", run_id), 0)
    files.write(build("runs", [row], run_id), place)


def _row(folder: Path, experiment: Experiment) -> dict[str, Any]:
    """The packed run's row of table `runs`, as that of the new one."""
    path = files.written(folder / "runs")[0]
    with files.reported("read", path):
        row: dict[str, Any] = files.read(path).to_pylist()[0]
    return row | {
        "name": experiment.name,
        "config": experiment.model_dump_json(),
        "config_hash": experiment.config_hash,
        "sweep_id": experiment.results.sweep_id,
        "trial_id": experiment.results.trial_id,
        "end": None,
        "status": "running",
        "error": None,
    }


def _copy(source: Path, target: Path) -> None:
    """Copy a folder, if it is there; what is a hole in a file stays one."""
    if source.exists():
        shutil.copytree(source, target, copy_function=_copy_sparse)


def _copy_sparse(source: str, target: str) -> None:
    """Copy a file's data: a state file is as long as all its clients' slots, and mostly empty."""
    with open(source, "rb") as read, open(target, "wb") as written:
        length, place = os.fstat(read.fileno()).st_size, 0
        written.truncate(length)
        while place < length:
            try:
                place = os.lseek(read.fileno(), place, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # no more data
                    raise
                break
            end = os.lseek(read.fileno(), place, os.SEEK_HOLE)
            read.seek(place)
            written.seek(place)
            _copy_bytes(read, written, end - place)
            place = end


def _copy_bytes(read: IO[bytes], written: IO[bytes], count: int) -> None:
    while count:
        piece = read.read(min(count, PIECE))
        written.write(piece)
        count -= len(piece)


def _refuse_others(before: Experiment, after: Experiment) -> None:
    first, second = (_flat(each.model_dump(mode="json")) for each in (before, after))
    others = [
        f"{path} must stay {first.get(path)!r} in a branch, got {second.get(path)!r}: only "
        f"{', '.join(CHANGEABLE)} can change"
        for path in sorted(first.keys() | second.keys())
        if first.get(path) != second.get(path)
        and path not in CHANGEABLE
        and path.partition(".")[0] not in _FREE
    ]
    if others:
        raise ConfigError(others)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings, by dotted path."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
