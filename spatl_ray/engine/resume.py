"""Goes on with a run that was broken off, as if it had not been."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spatl_ray.callbacks import Callback
from spatl_ray.data.datasets import Dataset
from spatl_ray.engine.backend import Backend
from spatl_ray.engine.checkpoint_mark import refuse_restart
from spatl_ray.engine.environment import versions
from spatl_ray.engine.keeper import checkpoints_of
from spatl_ray.engine.lock import alone_with_run
from spatl_ray.engine.recorded import BrokenOff, recorded
from spatl_ray.engine.rounds import RunSummary
from spatl_ray.engine.run import carry_out
from spatl_ray.errors import ResultsError


@alone_with_run
def resume(
    folder: Path,
    run_id: str,
    *,
    dataset: Dataset | None = None,
    callbacks: Sequence[Callback] = (),
    backend: Backend | None = None,
    force: bool = False,
) -> RunSummary:
    """Go on with a run from its newest checkpoint; without one, from its beginning.

    Parameters, clients' states and all unmeasured columns become those of a run that was never broken
    off, bit for bit. Rows after the checkpoint are written again.

    Args:
        folder: the results folder.
        run_id: of the run.
        dataset: the same data in memory that `run` was given.
        callbacks: told about progress.
        backend: instead of the config's.
        force: go on although software or data are others than before: the results are then of neither.
            Begin again if the checkpoints are gone.

    Raises:
        SpatlError: there is no such run, it has finished, its config, software or data are others
            than before, its checkpoints cannot be read, or clients' states are lost.
    """
    experiment, row = recorded(folder.absolute(), run_id)
    if row["status"] == "finished":
        raise ResultsError(f"run {run_id!r} must not have finished, got status 'finished'")
    if not force:
        _refuse_other_software(run_id, row)
    checkpoint, faults = checkpoints_of(experiment).newest()
    if not force:
        refuse_restart(experiment, checkpoint, faults)
    fingerprint = None if force else row["data_fingerprint"]
    broken_off = BrokenOff(run_id, fingerprint, checkpoint, faults)
    return carry_out(experiment, dataset, callbacks, backend, broken_off)


def _refuse_other_software(run_id: str, row: Mapping[str, Any]) -> None:
    """Other versions give other numbers, or may."""
    before, now = json.loads(row["versions"]), versions()
    others = [
        f"{name} {now.get(name, 'not installed')} instead of {before[name]}"
        for name in before
        if now.get(name) != before[name]
    ]
    if others:
        raise ResultsError(
            f"run {run_id!r} must go on with the software that it began with, got {', '.join(others)}; "
            "--force goes on anyway"
        )
