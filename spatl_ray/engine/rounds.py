"""The loop over rounds: sample, train, combine, evaluate, write down."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.data.federated import FederatedData, federate
from spatl_ray.data.memory import with_memory
from spatl_ray.engine import rows
from spatl_ray.engine.backend import Backend, RoundPlan, SerialBackend
from spatl_ray.engine.blueprint import Blueprint, make_blueprint
from spatl_ray.engine.checks import (
    check,
    combined,
    faults_without_data,
    faults_without_model,
    fleet_of,
)
from spatl_ray.engine.clock import round_seconds
from spatl_ray.engine.cohort import Asked, Cohorts
from spatl_ray.engine.flops import training_flops
from spatl_ray.engine.folders import (
    model_file,
    profile_file,
    remove_leftovers,
    state_folder,
)
from spatl_ray.engine.messages import ClientReport, Evaluation, Facts, RoundOutcome
from spatl_ray.engine.profile import Span, Spans, write_trace
from spatl_ray.engine.schedule import sample_panel
from spatl_ray.engine.server_file import save_server
from spatl_ray.engine.signals import HeldSignals
from spatl_ray.errors import ConfigError, EngineError, SpatlError
from spatl_ray.loggers.named import Given
from spatl_ray.loggers.registry import make_loggers
from spatl_ray.results.writer import ResultsWriter
from spatl_ray.training.schedule import learning_rate

LOST_ROUNDS = 3
"""Rounds in a row in which every client failed, after which a run that had begun well ends."""


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
        SpatlError: before any work starts, if the experiment cannot run; later if no client of a
            round could train, or Ray failed.
    """
    _check_type(experiment)
    torch.set_num_threads(1)
    listeners = [Given(callback) for callback in callbacks]
    if dataset is not None:
        experiment = with_memory(experiment, dataset)
    _say(listeners, "loading data")
    data, blueprint = prepare(experiment, dataset)
    writer = ResultsWriter(
        Path(experiment.results.folder).absolute(),
        experiment.run_id,
        overwrite=experiment.results.overwrite,
        flush_seconds=experiment.results.flush_seconds,
    )
    loggers = make_loggers(experiment)
    _say(listeners, _starting(experiment))
    states = state_folder(experiment)
    backend = backend or make_backend(experiment, data, states)
    try:
        facts = backend.start()
        _refuse_mixed(experiment, facts)
        remove_leftovers(experiment)
        backend.forget_states()
        job = _Run(experiment, data, blueprint, backend, writer, (*loggers, *listeners))
        with HeldSignals() as signals:
            writer.start(rows.run_row(experiment, data, facts))
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
    try:
        given = dataset or load_dataset(experiment.data, experiment.seed)
        data = federate(given, experiment)
    except SpatlError as error:
        raise combined([error, *faults_without_data(experiment)]) from error
    try:
        blueprint = make_blueprint(experiment, given.spec, torch.device("cpu"))
    except SpatlError as error:
        raise combined([error, *faults_without_model(experiment, data)]) from error
    check(experiment, data, blueprint)
    return data, blueprint


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


def _recorded(problem: BaseException) -> str:
    """What went wrong, with the notes on who raised it, for table `runs`."""
    notes = getattr(problem, "__notes__", [])
    return "; ".join([f"{type(problem).__name__}: {problem}", *notes])


@dataclass
class _Run:
    """One run's loop and what it carries from round to round."""

    experiment: Experiment
    data: FederatedData
    blueprint: Blueprint
    backend: Backend
    writer: ResultsWriter
    callbacks: tuple[Callback, ...]
    ledger: rows.Ledger = field(default_factory=rows.Ledger)
    last: rows.Row = field(default_factory=dict)
    someone_trained: bool = False
    lost: int = 0
    ahead: Asked | Exception | None = None

    def __post_init__(self) -> None:
        self._samples = self.data.sizes("train")
        self._flops = training_flops(self.blueprint.model, self.data.dataset.spec)
        self._fleet = fleet_of(self.experiment)
        self._cohorts = Cohorts(
            self.experiment, self._samples, self._fleet, self._flops, self.backend
        )
        self._panel = sample_panel(self.experiment)
        self.spans = Spans(self.experiment.engine.profile)
        self.tracks: dict[str, list[Span]] = defaultdict(list)
        # Now: a trace that is edited during the run must not give it another id.
        self._run_id, self._model = self.experiment.run_id, model_file(self.experiment)

    def to_end(self, signals: HeldSignals) -> RunSummary:
        """All rounds; Ctrl-C ends the run with readable results."""
        status, error = "failed", None
        try:
            with signals.let_in():
                self._all_rounds()
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
        except BaseException as problem:
            error = _recorded(problem)
            raise
        finally:
            self.writer.finish(status, error)
            self._say_goodbye(status)
            if self.experiment.engine.profile:
                with suppress(SpatlError):  # of a backend that has failed
                    self._take_spans()
            if self.tracks:
                write_trace(profile_file(self.experiment), self.tracks)
        folder = Path(self.experiment.results.folder).absolute()
        return RunSummary(self._run_id, folder, status, self.last)

    def _all_rounds(self) -> None:
        for callback in self.callbacks:
            callback.run_started(self.experiment, self._run_id)
        for round_ in range(self.experiment.rounds):
            self._round(round_)
        # Kept for `spatl export`: the server's arrays, the global model among them.
        save_server(self._model, self.backend.arrays(), self.blueprint.algorithm.spaces())

    def _say_goodbye(self, status: str) -> None:
        """Tell every callback how the run ended, also if one of them raises."""
        with ExitStack() as goodbyes:
            for callback in reversed(self.callbacks):
                goodbyes.callback(callback.run_ended, status)

    def _round(self, round_: int) -> None:
        """One round; if it is profiled, what its processes did."""
        with self.spans.of(f"round {round_}"):
            self._whole_round(round_)
        # Workers that are at the next round answer after it.
        if self.experiment.engine.profile and self.ahead is None:
            self._take_spans()

    def _take_spans(self) -> None:
        """Keep what the processes did."""
        for name, spans in ("driver", self.spans.take()), *self.backend.spans().items():
            self.tracks[name].extend(spans)

    def _whole_round(self, round_: int) -> None:
        """From its cohort to its rows."""
        start = time.perf_counter()
        asked = self._asked(round_)
        with self.spans.of("train and combine"):
            outcome = self._train(asked.plan)
        if self.ahead is None:
            self._cohorts.ended(round_, outcome.clients)
        hopeless = self._note_hopeless(outcome)
        with self.spans.of("evaluate"):
            evaluation = None
            if self._is_due(round_) and not hopeless:
                received = self._cohorts.evaluation(round_ + 1, asked.plan.lr, self._panel)
                evaluation = self.backend.evaluate(received)
        with self.spans.of("write rows"):
            self._write(asked, outcome, evaluation, start)
        if hopeless:
            raise EngineError(hopeless)

    def _is_due(self, round_: int) -> bool:
        """Whether a round is evaluated."""
        ended = round_ + 1
        return ended % self.experiment.evaluation.every == 0 or ended == self.experiment.rounds

    def _draw(self, round_: int) -> Asked:
        """A round's cohort."""
        lr = learning_rate(self.experiment.training, round_, self.experiment.rounds)
        with self.spans.of("draw"):
            measured = set(self._panel.tolist()) if self._is_due(round_) else set()
            return self._cohorts.draw(round_, lr, measured)

    def _asked(self, round_: int) -> Asked:
        """A round's cohort, drawn now or ahead."""
        ahead, self.ahead = self.ahead, None
        if isinstance(ahead, Exception):
            raise ahead
        return ahead or self._draw(round_)

    def _next(self, round_: int, reports: Sequence[ClientReport]) -> RoundPlan | None:
        """The round after one whose reports are there, unless something else comes first.

        What goes wrong with it is raised when its turn comes: this round is not written yet.
        """
        if self._is_due(round_) or all(report.status == "failed" for report in reports):
            return None
        self._cohorts.ended(round_, reports)
        try:
            self.ahead = self._draw(round_ + 1)
        except Exception as problem:
            self.ahead = problem
            return None
        return self.ahead.plan

    def _note_hopeless(self, outcome: RoundOutcome) -> str:
        """Why it makes no sense to go on, if too many rounds in a row were lost; else ""."""
        reports = outcome.clients
        if any(report.status != "failed" for report in reports):
            self.someone_trained, self.lost = True, 0
        elif reports:
            self.lost += 1
        if self.lost < (LOST_ROUNDS if self.someone_trained else 1):
            return ""
        first = reports[0]
        rounds = "the first round" if self.lost == 1 else f"{self.lost} rounds in a row"
        return f"every client of {rounds} failed; client {first.client}: {first.reason}"

    def _train(self, plan: RoundPlan) -> RoundOutcome:
        """Train the round's cohort."""
        round_, size = plan.round, len(plan.members)
        finished = 0

        def done(count: int) -> None:
            nonlocal finished
            finished += count
            for callback in self.callbacks:
                callback.clients_done(round_, finished, size)

        return self.backend.train(plan, done, partial(self._next, round_))

    def _write(
        self, asked: Asked, outcome: RoundOutcome, evaluation: Evaluation | None, start: float
    ) -> None:
        """The round's rows, to the results and to the callbacks."""
        round_, probed = asked.plan.round, asked.unused_bytes
        self.last = rows.round_row(
            round_,
            asked.plan.lr,
            outcome,
            evaluation,
            self.ledger,
            time.perf_counter() - start,
            self._simulated(asked, outcome),
            probed,
            len(self._panel),
        )
        clients = rows.client_rows(round_, outcome, evaluation, self._flops, probed)
        events = self._events(round_, outcome)
        self.writer.add("rounds", [self.last])
        self.writer.add("clients", clients)
        self.writer.add("layers", rows.layer_rows(round_, outcome))
        self.writer.add("events", events)
        for callback in self.callbacks:
            for event in events:
                callback.event(event)
            callback.clients_ended(round_, clients)
            callback.round_ended(self.last)

    def _simulated(self, asked: Asked, outcome: RoundOutcome) -> float | None:
        """Seconds of the round on the clients' devices; None without devices."""
        if self._fleet is None:
            return None
        return round_seconds(self.experiment, outcome.clients, asked.plan.elapsed)

    def _events(self, round_: int, outcome: RoundOutcome) -> list[rows.Row]:
        """What was noteworthy."""
        now = datetime.now(UTC)
        events = rows.event_rows(round_, outcome, now)
        there, wanted = len(outcome.clients), self.experiment.asked_size
        if there < wanted:
            events.append(rows.few_clients(round_, there, wanted, now))
        if not any(report.counts for report in outcome.clients):
            events.append(rows.nothing_accepted(round_, now))
        return events
