"""Goes on with a run that was broken off, as if it had not been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import Dataset
from spatl_ray.engine.backend import Backend
from spatl_ray.engine.checkpoint_mark import refuse_restart
from spatl_ray.engine.environment import software
from spatl_ray.engine.keeper import checkpoints_of
from spatl_ray.engine.lock import alone_with_run
from spatl_ray.engine.recorded import BrokenOff, recorded
from spatl_ray.engine.run import carry_out
from spatl_ray.engine.summary import RunSummary
from spatl_ray.errors import ConfigError, ResultsError
from spatl_ray.results.mappings import mapping_of
from spatl_ray.results.remote import remote_of

LOCAL = "local"
"""The address of a Ray that is started on this machine."""


@alone_with_run
def resume(
    folder: str | Path,
    run_id: str,
    *,
    dataset: Dataset | None = None,
    callbacks: Sequence[Callback] = (),
    backend: Backend | None = None,
    force: bool = False,
    address: str | None = None,
) -> RunSummary:
    """Go on with a run from its newest checkpoint; without one, from its beginning.

    Parameters, clients' states and all unmeasured columns become those of a run that was never broken
    off, bit for bit. Rows after the checkpoint are written again.

    Args:
        folder: the results folder, or an address, from which the run is fetched.
        run_id: of the run.
        dataset: the same data in memory that `run` was given.
        callbacks: told about progress.
        backend: instead of the config's.
        force: go on although software, CPU capability (or GPU) or data are others than before: the
            results are then of neither. Begin again if the checkpoints are gone.
        address: of the Ray cluster to go on with, instead of engine.address; `local` starts Ray here.

    Raises:
        SpatlError: there is no such run, it has finished, its config, software (own parts among it) or
            data are others than before, an address is given to a run without Ray, its checkpoints cannot
            be read, or clients' states are lost.
    """
    if (remote := remote_of(folder, run_id)) is not None:
        remote.check()
        remote.pull()
    experiment, row = recorded(folder, run_id)
    if row["status"] == "finished":
        raise ResultsError(f"run {run_id!r} must not have finished, got status 'finished'")
    if address is not None:
        experiment = _at(address, experiment)
    if not force:
        _refuse_other_software(experiment, row)
    checkpoint, faults = checkpoints_of(experiment).newest()
    if not force:
        refuse_restart(experiment, checkpoint, faults)
    fingerprint = None if force else row["data_fingerprint"]
    arithmetic = None if force else row["fingerprint"]
    broken_off = BrokenOff(run_id, fingerprint, checkpoint, faults, arithmetic, remote)
    return carry_out(experiment, dataset, callbacks, backend, broken_off)


def _at(address: str, experiment: Experiment) -> Experiment:
    """The experiment on another cluster."""
    engine = experiment.engine
    if engine.backend != "ray":
        raise ConfigError(
            f"--address must be left out for a run with engine.backend {engine.backend!r}, got {address!r}"
        )
    elsewhere = engine.model_copy(update={"address": None if address == LOCAL else address})
    return experiment.model_copy(update={"engine": elsewhere})


def _refuse_other_software(experiment: Experiment, row: Mapping[str, Any]) -> None:
    """Other versions or sources give other numbers, or may."""
    before, now = mapping_of(row, experiment.run_id, "versions"), software(experiment)
    others = [
        f"{name} {now.get(name, 'not installed')} instead of {before[name]}"
        for name in before
        if now.get(name) != before[name]
    ]
    if others:
        raise ResultsError(
            f"run {experiment.run_id!r} must go on with the software that it began with, got "
            f"{', '.join(others)}; --force goes on anyway"
        )
