"""The loop over rounds: sample, train, combine, evaluate, write down."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial

from spatl_ray.addresses import full_name
from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine import rows
from spatl_ray.engine.attacks import hostile_clients
from spatl_ray.engine.backend import Backend, RoundPlan
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.engine.checkpoint import Checkpoint, Checkpoints
from spatl_ray.engine.checks import fleet_of
from spatl_ray.engine.clock import round_seconds
from spatl_ray.engine.cohort import Asked, Cohorts
from spatl_ray.engine.flops import training_flops
from spatl_ray.engine.folders import model_file, profile_file, remove_leftovers
from spatl_ray.engine.keeper import Keeper
from spatl_ray.engine.messages import ClientReport, Evaluation, Facts, RoundOutcome
from spatl_ray.engine.prepare import refuse_mixed
from spatl_ray.engine.profile import Profile
from spatl_ray.engine.recorded import BrokenOff
from spatl_ray.engine.schedule import sample_panel
from spatl_ray.engine.server_file import save_server
from spatl_ray.engine.signals import HeldSignals
from spatl_ray.engine.summary import RunSummary
from spatl_ray.errors import EngineError, LostError, SpatlError
from spatl_ray.results.writer import ResultsWriter
from spatl_ray.training.schedule import learning_rate

MOST_LOSSES = 3
"""How often the same round is tried again after processes or nodes were lost."""

LOST_ROUNDS = 3
"""Rounds in a row in which every client failed, after which a run that had begun well ends."""


def _recorded(problem: BaseException) -> str:
    """What went wrong, with the notes on who raised it, for table `runs`."""
    notes = getattr(problem, "__notes__", [])
    return "; ".join([f"{type(problem).__name__}: {problem}", *notes])


@dataclass
class Rounds:
    """One run's loop and what it carries from round to round."""

    experiment: Experiment
    data: FederatedData
    blueprint: Blueprint
    backend: Backend
    writer: ResultsWriter
    callbacks: tuple[Callback, ...]
    checkpoints: Checkpoints
    ledger: rows.Ledger = field(default_factory=rows.Ledger)
    last: rows.Row = field(default_factory=dict)
    someone_trained: bool = False
    lost: int = 0
    ahead: Asked | Exception | None = None
    round: int = 0
    losses: Counter[int] = field(default_factory=Counter)
    notes: list[rows.Row] = field(default_factory=list)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        self._samples = self.data.sizes("train")
        self._flops = training_flops(self.blueprint.model, self.data.dataset.spec)
        self._fleet = fleet_of(self.experiment)
        self._panel = sample_panel(self.experiment)
        attacked = self.experiment.attack is not None
        self._hostile = hostile_clients(self.experiment) if attacked else None
        self._keeper = Keeper(self.experiment, self.backend, self.writer.flush, self.checkpoints)
        self._profile = Profile(self.experiment.engine.profile)
        self.spans = self._profile.spans
        # Now: a trace that is edited during the run must not give it another id.
        self._run_id, self._model = self.experiment.run_id, model_file(self.experiment)

    def begin(self, facts: Sequence[Facts], broken_off: BrokenOff | None) -> None:
        """Go to the first round, of a new run or one that goes on; `facts` are of its workers.

        Raises:
            StateError: clients' states are damaged or lost, of each checkpoint.
        """
        self.fingerprint = facts[0].fingerprint
        remove_leftovers(self.experiment)
        checkpoint = None if broken_off is None else broken_off.checkpoint
        if checkpoint is None:
            self._keeper.files.clear()
        faults = self._go_back_to(checkpoint)
        if broken_off is not None:
            now = datetime.now(UTC)
            self.notes += rows.resumed(self.round, [*broken_off.faults, *faults], now)
            self.notes += rows.shrunk(self.experiment.engine, facts, now)

    def _go_back_to(self, checkpoint: Checkpoint | None) -> list[str]:
        """Go to a checkpoint, or an older one if need be; what is wrong with those that were passed over."""
        if checkpoint is None:
            self._go_to(None)
            return []
        return self._keeper.go_to(checkpoint, self._go_to)

    def _go_to(self, checkpoint: Checkpoint | None) -> None:
        """Take everything to where it was after a checkpoint's round, or before the first one."""
        self.ahead, self.ledger, self.someone_trained, self.lost = None, rows.Ledger(), False, 0
        self._cohorts = Cohorts(
            self.experiment, self._samples, self._fleet, self._flops, self.backend
        )
        if checkpoint is None:
            self.round = 0
            self.backend.forget_states()
            return
        self.round = checkpoint.round + 1
        self._cohorts.remember(checkpoint.driver)
        self.ledger = rows.Ledger(**checkpoint.facts["ledger"])
        self.someone_trained = checkpoint.facts["someone_trained"]
        self.lost = checkpoint.facts["lost"]
        folders = checkpoint.facts.get("state_folders", ())
        self.backend.restore(checkpoint.server, self.round, self._cohorts.last, folders)
        self._keeper.went_to(checkpoint)

    def _facts(self) -> dict[str, object]:
        """What is carried on beside arrays."""
        return {
            "run_id": self._run_id,
            "ledger": asdict(self.ledger),
            "someone_trained": self.someone_trained,
            "lost": self.lost,
            "state_folders": list(self.backend.state_folders()),
            "rows": self.writer.rows(),
        }

    def to_end(self, signals: HeldSignals) -> RunSummary:
        """All rounds; Ctrl-C ends the run with readable results."""
        status, error = "failed", None
        try:
            with signals.let_in():
                self._all_rounds()
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            self._keeper.take_at_end(self.round - 1, self._facts)
        except BaseException as problem:
            error = _recorded(problem)
            raise
        finally:
            self._close(status, error)
        results = full_name(self.experiment.results.folder)
        return RunSummary(self._run_id, results, status, self.last)

    def _close(self, status: str, error: str | None) -> None:
        """Close the results and tell how the run ended."""
        try:
            self.writer.finish(status, error)
        except SpatlError:
            status = "failed"
            raise
        finally:
            self._say_goodbye(status)
            if status == "finished":
                self._keeper.tidy_up()
            with suppress(SpatlError):  # of a backend that has failed
                self._profile.take(self.backend.spans)
            self._profile.write(profile_file(self.experiment))
            if status != "failed":
                with suppress(SpatlError):  # rows are there; this is of what came after them
                    self.writer.push()

    def _all_rounds(self) -> None:
        for callback in self.callbacks:
            callback.run_started(self.experiment, self._run_id)
        if self.round:  # The writer knows of the newest checkpoint, and this may be an older one.
            self.writer.rewind(self.round)
        self._take_notes()
        while not self._went_to_end():
            pass

    def _went_to_end(self) -> bool:
        """All rounds from here on; False if something was lost, and they are to come again."""
        try:
            while self.round < self.experiment.rounds:
                for callback in self.callbacks:
                    callback.round_started(self.round)
                self._round(self.round)
                self.round += 1
                self._keeper.take_if_due(self.round - 1, self._facts)
            self.writer.flush()  # finds out whether what was written is still there
            self._save()
        except LostError as lost:
            self._recover(lost)
            return False
        return True

    def _save(self) -> None:
        """Keep the server's arrays, the global model among them, for `spatl export`."""
        save_server(self._model, self.backend.arrays(), self.blueprint.algorithm.spaces())

    def _recover(self, lost: LostError) -> None:
        """Go back to the newest checkpoint, with new actors; more may be lost meanwhile.

        Raises:
            LostError: that did not help.
        """
        round_ = self.round
        while True:
            self.losses[round_] += 1
            if self.losses[round_] > MOST_LOSSES:
                raise lost
            try:
                self._go_back(lost, round_)
                return
            except LostError as another:
                lost = LostError(f"{lost}; then {another}")

    def _go_back(self, lost: LostError, round_: int) -> None:
        """Try once to recover from a loss in a round."""
        self._keeper.lost()
        self.backend.close()
        facts = self.backend.start(again=True)
        refuse_mixed(self.experiment, facts, self.fingerprint)
        checkpoint, faults = self._keeper.files.newest()
        faults += self._go_back_to(checkpoint)
        self.writer.rewind(self.round)
        now = datetime.now(UTC)
        self.notes += rows.recovered(round_, self.round, str(lost), faults, now)
        self.notes += rows.shrunk(self.experiment.engine, facts, now)
        self._take_notes()

    def _take_notes(self) -> None:
        """Write events of the run, not of a round."""
        notes, self.notes = self.notes, []
        self.writer.add("events", notes)
        for callback in self.callbacks:
            for note in notes:
                callback.event(note)

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
        if self.ahead is None:
            self._profile.take(self.backend.spans)

    def _whole_round(self, round_: int) -> None:
        """From its cohort to its rows."""
        start = time.perf_counter()
        asked = self._asked(round_)
        with self.spans.of("train and combine"):
            outcome = self._train(asked.plan)
        if self.ahead is None:
            self._ended(round_, outcome.clients)
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
            return self._cohorts.draw(round_, lr, measured, self._keeper.kept)

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
        self._ended(round_, reports)
        try:
            self.ahead = self._draw(round_ + 1)
        except Exception as problem:
            self.ahead = problem
            return None
        return self.ahead.plan

    def _ended(self, round_: int, reports: Sequence[ClientReport]) -> None:
        """A round's reports are there, and the next one is not drawn yet."""
        self._cohorts.ended(round_, reports)
        self._keeper.ended(round_, reports, self._cohorts.memory)

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
        clients = rows.client_rows(round_, outcome, evaluation, self._flops, probed, self._hostile)
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
