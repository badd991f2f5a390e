"""The loop over rounds: sample, train, combine, evaluate, write down."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from spatl_ray.algorithms.registry import make_algorithm
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.data.federated import FederatedData, federate
from spatl_ray.engine import rows
from spatl_ray.engine.backend import Backend, EvaluationPlan, RoundPlan, SerialBackend
from spatl_ray.engine.blueprint import Blueprint, make_blueprint
from spatl_ray.engine.export import save_server
from spatl_ray.engine.flops import training_flops
from spatl_ray.engine.messages import NEVER, Evaluation, Facts, Member, PanelMember, RoundOutcome
from spatl_ray.engine.schedule import (
    cohort_weights,
    objective_weights,
    sample_cohort,
    sample_panel,
)
from spatl_ray.errors import ConfigError, EngineError, SpatlError
from spatl_ray.models.split import model_factory
from spatl_ray.progress import Observer
from spatl_ray.results.writer import ResultsWriter
from spatl_ray.training.schedule import learning_rate


@dataclass(frozen=True)
class RunSummary:
    """What a run leaves.

    Attributes:
        run_id: its name in the results.
        folder: the results folder.
        status: finished or interrupted.
        last_round: the last row of table `rounds`, empty if no round ended.
    """

    run_id: str
    folder: Path
    status: str
    last_round: rows.Row


def run(
    experiment: Experiment,
    *,
    dataset: Dataset | None = None,
    observers: Sequence[Observer] = (),
    backend: Backend | None = None,
) -> RunSummary:
    """Run an experiment and write its results.

    Args:
        experiment: what to run.
        dataset: in-memory data instead of the config's.
        observers: told about progress.
        backend: instead of the config's; it must be made for the same experiment and data.

    Raises:
        SpatlError: before any work starts, if the experiment cannot run; later if no client of a
            round could train, or Ray failed.
    """
    torch.set_num_threads(1)
    folder = Path(experiment.results.folder).absolute()
    writer = ResultsWriter(
        folder,
        experiment.run_id,
        overwrite=experiment.results.overwrite,
        flush_seconds=experiment.results.flush_seconds,
    )
    data, blueprint = prepare(experiment, dataset)
    states = state_folder(experiment)
    backend = backend or make_backend(experiment, data, states)
    try:
        facts = backend.start()
        _refuse_mixed(experiment, facts)
        _remove_leftovers(experiment)
        writer.start(rows.run_row(experiment, data, facts))
        flops = training_flops(blueprint.model, data.dataset.spec)
        job = _Run(experiment, data, blueprint, flops, backend, writer, tuple(observers))
        return job.to_end()
    finally:
        backend.close()


def state_folder(experiment: Experiment) -> Path:
    """Where client states of a run lie."""
    folder = Path(experiment.results.folder).absolute()
    return folder / "states" / f"run_id={experiment.run_id}"


def model_file(experiment: Experiment) -> Path:
    """Where the server's arrays lie after a run."""
    folder = Path(experiment.results.folder).absolute()
    return folder / "models" / f"run_id={experiment.run_id}" / "server.safetensors"


def _remove_leftovers(experiment: Experiment) -> None:
    """Client states and model of an earlier run of the same id."""
    for folder in (state_folder(experiment), model_file(experiment).parent):
        if folder.exists():
            shutil.rmtree(folder)


def prepare(
    experiment: Experiment, dataset: Dataset | None = None
) -> tuple[FederatedData, Blueprint]:
    """Load and deal the data, build model and algorithm: what can be wrong shows here, all at once.

    Args:
        experiment: the config.
        dataset: in-memory data instead of the config's.

    Raises:
        SpatlError: the one fault, as it is; or a ConfigError with all of them.
    """
    faults: list[SpatlError] = []
    data = None
    try:
        given = dataset or load_dataset(experiment.data, experiment.seed)
        data = federate(given, experiment)
        return data, make_blueprint(experiment, given.spec, torch.device("cpu"))
    except SpatlError as error:
        faults.append(error)
    if data is None:
        # Without data there is no shape to build the model for; its name can still be wrong.
        for check in (_check_model_name, _check_algorithm):
            try:
                check(experiment)
            except SpatlError as error:
                faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    raise ConfigError([line for fault in faults for line in str(fault).splitlines()])


def _check_model_name(experiment: Experiment) -> None:
    model_factory(experiment.model.name)


def _check_algorithm(experiment: Experiment) -> None:
    make_algorithm(experiment.algorithm)


def make_backend(experiment: Experiment, data: FederatedData, states: Path) -> Backend:
    """The backend that the config names; Ray is imported only if it is asked for."""
    if experiment.engine.backend == "serial":
        return SerialBackend(experiment, data, states)
    from spatl_ray.engine.ray_backend import RayBackend

    return RayBackend(experiment, data, states)


def _refuse_mixed(experiment: Experiment, facts: list[Facts]) -> None:
    """Workers that would give different bits do not run together, unless it is allowed."""
    kinds = sorted({f.fingerprint for f in facts})
    if len(kinds) > 1 and not experiment.engine.allow_mixed:
        raise EngineError(
            "workers must share one CPU capability (or GPU) and one software set, or results depend "
            f"on placement; got {'; '.join(kinds)}. engine.allow_mixed=true runs them anyway"
        )


@dataclass
class _Run:
    """One run's loop and what it carries from round to round."""

    experiment: Experiment
    data: FederatedData
    blueprint: Blueprint
    flops: float
    backend: Backend
    writer: ResultsWriter
    observers: tuple[Observer, ...]
    ledger: rows.Ledger = field(default_factory=rows.Ledger)
    last: rows.Row = field(default_factory=dict)

    def __post_init__(self) -> None:
        samples = self.data.sizes("train")
        self._costs = samples.astype(np.float64)
        self._objective = objective_weights(self.experiment, samples)
        self._panel = sample_panel(self.experiment)
        self._last = np.full(self.experiment.clients, NEVER, dtype=np.int32)

    def to_end(self) -> RunSummary:
        """All rounds; Ctrl-C ends the run with readable results."""
        status, error = "failed", None
        try:
            for observer in self.observers:
                observer.run_started(self.experiment, self.experiment.run_id)
            for round_ in range(self.experiment.rounds):
                self._round(round_)
            self._save()
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
        except BaseException as problem:
            error = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            self.writer.finish(status, error)
            for observer in self.observers:
                observer.run_ended(status)
        folder = Path(self.experiment.results.folder).absolute()
        return RunSummary(self.experiment.run_id, folder, status, self.last)

    def _round(self, round_: int) -> None:
        """One round, from its cohort to its rows."""
        start = time.perf_counter()
        experiment = self.experiment
        due = (round_ + 1) % experiment.evaluation.every == 0 or round_ + 1 == experiment.rounds
        lr = learning_rate(experiment.training, round_, experiment.rounds)
        outcome = self._train(round_, lr, due)
        evaluation = self._evaluate(round_ + 1, lr) if due else None
        self._write(round_, lr, outcome, evaluation, start)

    def _train(self, round_: int, lr: float, measure: bool) -> RoundOutcome:
        """Train the round's cohort."""
        cohort = sample_cohort(self.experiment, round_)
        weights = cohort_weights(cohort, self._objective)
        panel = set(self._panel.tolist()) if measure else set()
        members = tuple(
            Member(client, weight, int(self._last[client]), client in panel)
            for client, weight in zip(cohort.tolist(), weights, strict=True)
        )
        costs = tuple(self._costs[cohort].tolist())
        finished = 0

        def done(count: int) -> None:
            nonlocal finished
            finished += count
            for observer in self.observers:
                observer.clients_done(round_, finished, len(members))

        outcome = self.backend.train(RoundPlan(round_, lr, members, costs), done)
        if all(report.status == "failed" for report in outcome.clients):
            first = outcome.clients[0]
            raise EngineError(
                f"every client of round {round_} failed; client {first.client}: {first.reason}"
            )
        counted = [r.client for r in outcome.clients if r.status in ("accepted", "clipped")]
        self._last[counted] = round_
        return outcome

    def _evaluate(self, round_: int, lr: float) -> Evaluation:
        """Evaluate what the panel would receive in round `round_`."""
        members = tuple(PanelMember(c, int(self._last[c])) for c in self._panel.tolist())
        costs = tuple(self._costs[self._panel].tolist())
        return self.backend.evaluate(EvaluationPlan(round_, lr, members, costs))

    def _write(
        self,
        round_: int,
        lr: float,
        outcome: RoundOutcome,
        evaluation: Evaluation | None,
        start: float,
    ) -> None:
        """The round's rows, to the results and to the observers."""
        seconds = time.perf_counter() - start
        self.last = rows.round_row(round_, lr, outcome, evaluation, self.ledger, seconds)
        events = rows.event_rows(round_, outcome, datetime.now(UTC))
        if not any(report.status in ("accepted", "clipped") for report in outcome.clients):
            events.append(rows.nothing_accepted(round_, datetime.now(UTC)))
        self.writer.add("rounds", [self.last])
        self.writer.add("clients", rows.client_rows(round_, outcome, evaluation, self.flops))
        self.writer.add("layers", rows.layer_rows(round_, outcome))
        self.writer.add("events", events)
        for observer in self.observers:
            for event in events:
                observer.event(event)
            observer.round_ended(self.last)

    def _save(self) -> None:
        """Keep the server's arrays, the global model among them."""
        spaces = self.blueprint.algorithm.spaces()
        save_server(model_file(self.experiment), self.backend.arrays(), spaces)
