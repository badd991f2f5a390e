"""A run, from its config to its results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import torch

from spatl_ray.addresses import working_folder
from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import Dataset
from spatl_ray.data.federated import FederatedData
from spatl_ray.data.memory import with_memory
from spatl_ray.engine import rows
from spatl_ray.engine.backend import Backend
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.engine.bookkeeping import note_origin
from spatl_ray.engine.folders import state_folder
from spatl_ray.engine.keeper import checkpoints_of
from spatl_ray.engine.lock import alone
from spatl_ray.engine.notes import shared_gpus
from spatl_ray.engine.prepare import make_backend, prepare, refuse_mixed
from spatl_ray.engine.recorded import BrokenOff
from spatl_ray.engine.rounds import Rounds
from spatl_ray.engine.signals import HeldSignals
from spatl_ray.engine.summary import RunSummary
from spatl_ray.errors import ConfigError
from spatl_ray.loggers.logged import Logged
from spatl_ray.loggers.named import Given
from spatl_ray.loggers.registry import make_loggers
from spatl_ray.logs import about
from spatl_ray.results.remote import Remote, remote_of
from spatl_ray.results.writer import ResultsWriter


def run(
    experiment: Experiment,
    *,
    dataset: Dataset | None = None,
    callbacks: Sequence[Callback] = (),
    backend: Backend | None = None,
) -> RunSummary:
    """Run an experiment and write its results.

    Ctrl-C ends the run as "interrupted"; one while the results are closed is raised after that.

    Args:
        experiment: what to run.
        dataset: in-memory data instead of the config's. They are part of the recorded config and of
            the run id, see `spatl_ray.data.memory.with_memory`.
        callbacks: told about progress, after those that the config names.
        backend: instead of the config's; it must be made for the same experiment and data (with data
            in memory, for what `with_memory` gives).

    Raises:
        SpatlError: before any work starts, if the experiment cannot run or does so already; later if no
            client of a round could train, or Ray failed.
    """
    return carry_out(experiment, dataset, callbacks, backend)


def carry_out(
    experiment: Experiment,
    dataset: Dataset | None,
    callbacks: Sequence[Callback],
    backend: Backend | None,
    broken_off: BrokenOff | None = None,
) -> RunSummary:
    """`run`, from the beginning or from a checkpoint.

    Args:
        experiment, dataset, callbacks, backend: as for `run`.
        broken_off: what is known of the run, if it is to go on; the caller has it for itself.
    """
    _check_type(experiment)
    torch.set_num_threads(1)
    listeners = [Given(callback) for callback in callbacks]
    if dataset is not None:
        experiment = with_memory(experiment, dataset)
    remote = _remote(experiment, broken_off)
    _say(listeners, "loading data")
    data, blueprint = prepare(experiment, dataset)
    if broken_off is not None:
        broken_off.check(experiment, data)
        return _carried_out(experiment, data, blueprint, listeners, backend, broken_off, remote)
    with alone(working_folder(experiment.results.folder), experiment.run_id):
        if remote is not None:
            remote.begin()
        return _carried_out(experiment, data, blueprint, listeners, backend, None, remote)


def _remote(experiment: Experiment, broken_off: BrokenOff | None) -> Remote | None:
    """Where the results go besides, if they are at an address; it can be written."""
    if broken_off is not None:
        return broken_off.remote
    remote = remote_of(experiment.results.folder, experiment.run_id)
    if remote is not None:
        remote.check()
    return remote


def _carried_out(
    experiment: Experiment,
    data: FederatedData,
    blueprint: Blueprint,
    listeners: Sequence[Callback],
    backend: Backend | None,
    broken_off: BrokenOff | None,
    remote: Remote | None,
) -> RunSummary:
    """A run that no other process works on, once it is known what it is of."""
    writer = ResultsWriter(
        working_folder(experiment.results.folder),
        experiment.run_id,
        overwrite=experiment.results.overwrite,
        flush_seconds=experiment.results.flush_seconds,
        resume_at=None if broken_off is None else broken_off.first,
        remote=remote,
    )
    if broken_off is None:
        note_origin(experiment)
    checkpoints = checkpoints_of(experiment)
    if experiment.checkpoints.every:
        checkpoints.check()
    loggers = make_loggers(experiment)
    _say(listeners, _starting(experiment))
    states = state_folder(experiment)
    backend = backend or make_backend(experiment, data, states, partial(_say, listeners))
    try:
        facts = backend.start(again=broken_off is not None)
        refuse_mixed(experiment, facts, None if broken_off is None else broken_off.fingerprint)
        run_row = rows.run_row(experiment, data, facts)
        writer.refuse_other_data(run_row)
        told = (Logged(), *loggers, *listeners)
        job = Rounds(experiment, data, blueprint, backend, writer, told, checkpoints)
        job.notes += shared_gpus(facts, datetime.now(UTC))
        job.begin(facts, broken_off)
        with HeldSignals() as signals, about(run_id=experiment.run_id):
            writer.start(run_row)
            return job.to_end(signals)
    finally:
        backend.close()


def _say(callbacks: Sequence[Callback], step: str) -> None:
    for callback in callbacks:
        callback.preparing(step)


def _check_type(experiment: object) -> None:
    """Refuse what an annotation cannot: a preset's name."""
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"experiment must be what load_experiment(...) gives, got {type(experiment).__name__} "
            f"{experiment!r:.60}"
        )


def _starting(experiment: Experiment) -> str:
    """What bringing the backend up means."""
    engine = experiment.engine
    if engine.backend == "serial":
        return "building the model"
    return f"joining Ray at {engine.address}" if engine.address else "starting Ray and its actors"
