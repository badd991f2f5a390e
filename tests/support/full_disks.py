"""Runs on disks of a process's own that become full, and go on when there is room again.

    python full_disks.py FOLDER SMALL

SMALL is such a disk; the models are on another one. Prints what became of each run, as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from broken_off import experiment_of, without_history
from identity import assert_identical, everything

from spatl_ray import Callback, resume, run
from spatl_ray.config import Experiment
from spatl_ray.engine.checkpoint import Checkpoints
from spatl_ray.engine.folders import checkpoint_folder
from spatl_ray.errors import SpatlError


class Fill(Callback):
    """Leaves no room on a disk as a round begins."""

    def __init__(self, disk: Path, round_: int) -> None:
        self._filler, self._round = disk / "filler", round_

    def round_started(self, round_: int) -> None:
        if round_ == self._round:
            with open(self._filler, "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass


def cases(folder: Path, small: Path) -> dict[str, tuple[dict[str, Any], int]]:
    """Fields of each run, and the round in which the disk is full."""

    def results(place: Path) -> dict[str, Any]:
        return {"folder": str(place), "flush_seconds": 0}

    states = {"engine": {"state_folder": str(small / "states")}}
    apart = {"engine": {"state_folder": str(folder / "states")}}
    return {
        "slot": ({**states, "results": results(folder / "slot")}, 1),
        "undo": ({**states, "results": results(folder / "undo")}, 3),
        "rows": ({**apart, "results": results(small / "rows")}, 3),
        "checkpoint": (
            {"results": results(folder / "ck"), "checkpoints": {"folder": str(small / "ck")}},
            3,
        ),
        "model": ({"results": results(folder / "model")}, -1),
    }


def experiment(given: dict[str, Any]) -> Experiment:
    mlp = {"name": "mlp", "options": {"hidden": [64]}}
    fields = {"model": mlp, "clients": 6, "sample_ratio": 1.0, **given}
    return experiment_of(Path(given["results"]["folder"]), "scaffold", **fields)


def failed(each: Experiment, small: Path, round_: int) -> dict[str, Any]:
    """What a run says that found no room, and what is there of it."""
    try:
        run(each, callbacks=[Fill(small, round_)])
    except SpatlError as error:
        said = [type(error).__name__, str(error)]
    else:
        raise AssertionError("a full disk was not noticed")
    (row,) = pd.read_parquet(Path(each.results.folder) / "runs").to_dict("records")
    kept = Checkpoints(checkpoint_folder(each), 2)
    newest, faults = kept.newest()
    assert newest is not None
    assert not faults
    return {"said": said, "status": row["status"], "error": row["error"], "kept": kept.rounds()}


def main(folder: Path, small: Path) -> None:
    quiet = experiment({"results": {"folder": str(folder / "quiet")}})
    run(quiet)
    expected, told = without_history(everything(quiet)), {}
    for name, (given, round_) in cases(folder, small).items():
        each = experiment(given)
        if round_ < 0:
            models = Path(each.results.folder) / "models"
            models.mkdir(parents=True)
            mount = ["mount", "-t", "tmpfs", "none", str(models), "-o"]
            subprocess.run([*mount, "size=12k"], check=True)
        told[name] = failed(each, small, round_)
        if round_ < 0:
            subprocess.run([*mount, "remount,size=1m"], check=True)
        else:
            os.unlink(small / "filler")
        resume(Path(each.results.folder), each.run_id)
        assert_identical(without_history(everything(each)), expected)
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
