"""A worker: trains and evaluates groups of virtual clients, one after the other.

`train` is pure for a given round: it reads the client states that the driver says were committed
before it, so that a retried call gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from spatl_ray.aggregation.masked import Partial
from spatl_ray.aggregation.verdict import Verdict
from spatl_ray.algorithms.base import DELTA
from spatl_ray.arrays import Integers
from spatl_ray.config import Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.attacks import flips_labels
from spatl_ray.engine.attempts import Attempts
from spatl_ray.engine.blueprint import TORCH_TYPES, Blueprint, make_blueprint
from spatl_ray.engine.environment import fingerprint, hardware, make_deterministic
from spatl_ray.engine.evaluation import Evaluator
from spatl_ray.engine.local_rounds import LocalRounds
from spatl_ray.engine.messages import (
    NEVER,
    BroadcastBytes,
    ClientReport,
    ClientScore,
    Envelope,
    EvaluationTask,
    Facts,
    GroupPayloads,
    GroupSums,
    GroupTask,
)
from spatl_ray.engine.outcome import (
    Outcome,
    report_of,
    verdict_if_late,
)
from spatl_ray.engine.population import Population
from spatl_ray.engine.profile import Spans
from spatl_ray.engine.receive import receive
from spatl_ray.engine.sums import joined, merged
from spatl_ray.errors import LostError
from spatl_ray.state.store import StateStore
from spatl_ray.training.evaluate import Score
from spatl_ray.training.local import Trainer
from spatl_ray.update import ClientState, Update
from spatl_ray.wire.codec import decode_update


class Worker:
    """Runs virtual clients on one device.

    Args:
        experiment: the config.
        data: the federated data set.
        states: folder of client states, shared by all workers of the run.
        device: to train on.
        name: for the results' column `actor`.
        attempts: of earlier processes of the worker.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: FederatedData,
        states: Path,
        device: torch.device,
        name: str,
        attempts: Attempts | None = None,
    ) -> None:
        torch.set_num_threads(1)
        make_deterministic(device)
        self.experiment = experiment
        self.name = name
        self.device = device
        self.blueprint: Blueprint = make_blueprint(experiment, data.dataset.spec, device)
        self.algorithm = self.blueprint.algorithm
        initial = self.algorithm.start_client(self.blueprint.initial)
        self.store = StateStore(
            states, initial, experiment.engine.state_cache, experiment.wire.states
        )
        self.population = Population(
            data,
            device,
            TORCH_TYPES[experiment.training.dtype],
            experiment.evaluation.global_samples,
            experiment.seed,
            flips_labels(experiment),
            experiment.evaluation.client_global_samples,
        )
        self.trainer = Trainer(self.blueprint.model, experiment.training)
        self.evaluator = Evaluator(self.blueprint, self.population, self.trainer)
        self.spans = Spans(experiment.engine.profile)
        self.rounds = LocalRounds(
            self.blueprint,
            self.trainer,
            self.evaluator,
            self.store,
            self.spans,
            attempts or Attempts(),
        )
        self._pending: dict[tuple[int, int], dict[int, Outcome]] = {}

    def facts(self) -> Facts:
        """What the driver must know before the first round."""
        layout = self.algorithm.layout
        return Facts(
            fingerprint(self.device),
            hardware(self.device),
            layout.shared.size,
            layout.local.size,
            has_states=bool(self.store.initial),
        )

    # --- client states of other nodes ------------------------------------------------------------

    def records(self, clients: Mapping[int, int]) -> dict[int, bytes]:
        """Records of clients' states, each of the round that is given."""
        return {client: self.store.record(client, last) for client, last in clients.items()}

    def take_back(self, last: Integers, known: Collection[str]) -> list[int]:
        """Take this node's states back to a checkpoint, unless it says that they are of no use.

        Args:
            last: the round of each client's state, -1 for the initial one, shape (clients,).
            known: the nodes' folders that it names; older ones name none.

        Returns:
            Clients whose state is not here.
        """
        if known and self.store.folder.name not in known:
            self.store.forget()
        return self.store.take_back(last)

    def keep(self, records: Mapping[int, bytes], kept: Sequence[int]) -> None:
        """Hold records of another node; `kept` are the rounds of the checkpoints that can be restored."""
        with self.spans.of("keep states"):
            for client, record in records.items():
                self.store.keep(client, record, kept)

    # --- training -------------------------------------------------------------------------------

    def train(
        self, task: GroupTask, broadcast: BroadcastBytes
    ) -> tuple[GroupSums, tuple[ClientReport, ...]]:
        """Train a group and sum its accepted updates; their states are committed.

        A client that fails is reported, not raised; a fault of the machine is raised.
        """
        partial = merged(self.blueprint, [])
        reports = []
        for _, outcome in self.rounds.all_of(task, broadcast):
            if isinstance(outcome, ClientReport):
                reports.append(replace(outcome, actor=self.name))
                continue
            verdict = self._late(outcome, task) or self._contribute(outcome, task, partial)
            reports.append(self._report(outcome, verdict.status, verdict.reason, broadcast))
        accepted = tuple(r.client for r in reports if r.counts)
        return GroupSums(task.round, task.group, accepted, partial), tuple(reports)

    def combine(self, groups: Sequence[GroupSums]) -> GroupSums:
        """Sums of this node's workers as one."""
        with self.spans.of("combine"):
            return joined(self.blueprint, groups)

    def train_payloads(
        self, task: GroupTask, broadcast: BroadcastBytes
    ) -> tuple[GroupPayloads, tuple[ClientReport, ...]]:
        """Train a group for a rule that needs every update; states wait for `commit`."""
        envelopes, reports = [], []
        pending: dict[int, Outcome] = {}
        for member, outcome in self.rounds.all_of(task, broadcast):
            if isinstance(outcome, ClientReport):
                reports.append(replace(outcome, actor=self.name))
                continue
            late = self._late(outcome, task)
            if late is not None:
                reports.append(self._report(outcome, late.status, late.reason, broadcast))
                continue
            pending[member.client] = outcome
            remembered = self.algorithm.remembered(outcome.view.state)
            envelopes.append(Envelope(member.client, member.weights, outcome.payload, remembered))
            reports.append(self._report(outcome, "pending", "", broadcast))
        self._pending = {k: v for k, v in self._pending.items() if k[0] == task.round}
        self._pending[task.round, task.group] = pending
        return GroupPayloads(task.round, task.group, task.lr, tuple(envelopes)), tuple(reports)

    def commit(
        self, task: GroupTask, broadcast: BroadcastBytes, verdicts: Mapping[int, Verdict]
    ) -> None:
        """Commit the states of a group of `train_payloads`, by the aggregator's verdicts.

        A process that was restarted in between trains those who count again: `train_payloads` is pure.
        Who failed the first time has no verdict, whatever it would do now.

        Raises:
            LostError: a client whose update counts fails now.
        """
        counted = [c for c in task.clients if c in verdicts and verdicts[c].counts]
        failed: dict[int, str] = {}
        if (task.round, task.group) not in self._pending:
            _, reports = self.train_payloads(task.of(counted), broadcast)
            failed = {report.client: report.reason for report in reports}
        pending = self._pending.pop((task.round, task.group))
        for client in counted:
            if client not in pending:
                raise LostError(
                    f"client {client} counts in round {task.round}, and its state went with a process of "
                    f"{self.name}; trained again, it failed: {failed.get(client, '')}"
                )
            self._commit(pending[client], verdicts[client], task)

    def _commit(self, outcome: Outcome, verdict: Verdict, task: GroupTask) -> None:
        """Write the state of a client whose update counts."""
        state = self._state(outcome, verdict.applied(self._decoded(outcome)))
        member = outcome.member
        self.store.write(member.client, task.round, state, member.last, task.kept)

    def _late(self, outcome: Outcome, task: GroupTask) -> Verdict | None:
        """The verdict on an update after the round's deadline; None for one in time."""
        return verdict_if_late(outcome, task.elapsed, self.experiment.stragglers.deadline)

    def _contribute(self, outcome: Outcome, task: GroupTask, partial: Partial) -> Verdict:
        """Judge one client's decoded update, sum it and commit its state."""
        view, client = outcome.view, outcome.member.client
        remembered = self.algorithm.remembered(view.state)
        expected = replace(outcome.sent, parts={})
        with self.spans.of("receive"):
            received = receive(
                self.blueprint, outcome.payload, remembered, view.received, expected, view.lr
            )
        if received.verdict.counts:
            state = self._state(outcome, received.update)
            with self.spans.of("sum"):
                partial.add(received.terms, outcome.member.weights)
                partial.note_length(DELTA, received.terms, outcome.member.weights)
            with self.spans.of("write state"):
                self.store.write(client, view.round, state, outcome.member.last, task.kept)
        return received.verdict

    def _state(self, outcome: Outcome, update: Update) -> ClientState:
        """A client's new state; that of one that lies is as if it had told the truth.

        Otherwise its own next update would grow with its lies, through variates and residuals.
        """
        if self.rounds.attack.lies(outcome.member.client):
            update = replace(outcome.sent, parts=outcome.proposal.parts)
        return self.algorithm.commit(outcome.view, outcome.proposal, update)

    def _decoded(self, outcome: Outcome) -> Update:
        """A client's update as its payload says."""
        if not outcome.payload:
            return outcome.sent
        remembered = self.algorithm.remembered(outcome.view.state)
        return decode_update(outcome.payload, self.algorithm.spaces(), remembered)

    # --- reports --------------------------------------------------------------------------------

    def _report(
        self, outcome: Outcome, status: str, reason: str, broadcast: BroadcastBytes
    ) -> ClientReport:
        """The report of a client that trained."""
        down = broadcast.size(outcome.member)
        report = replace(report_of(outcome, status, reason, down, self.algorithm), actor=self.name)
        return self._measured(report, outcome) if outcome.member.measure else report

    def _measured(self, report: ClientReport, outcome: Outcome) -> ClientReport:
        """The report with the scores of the model right after local training."""
        end, client = outcome.results[-1].end, outcome.member.client
        kept: Score | None = None
        if outcome.proposal.inference is not None:
            kept = self.evaluator.score_kept(end, outcome.proposal.inference, client)
        return replace(
            report,
            after_local=self.evaluator.score(end, client, "test"),
            after_global=self.evaluator.score_global_of(end),
            inference_local=kept,
        )

    # --- evaluation -----------------------------------------------------------------------------

    def evaluate(
        self, task: EvaluationTask, broadcast: BroadcastBytes
    ) -> tuple[tuple[ClientScore, ...], Score | None]:
        """Score the models that panel members would receive now, and the global model if given."""
        common = self.rounds.decode(broadcast.common, task.round)
        scores: list[ClientScore] = []
        for member in task.members:
            view = self.rounds.view(task.round, task.lr, member, common, broadcast)
            with self.spans.of(f"evaluate client {member.client}"):
                scores.extend(self.evaluator.client(view, member.last != NEVER))
        whole = task.global_model
        with self.spans.of("evaluate the global model"):
            return tuple(scores), None if whole is None else self.evaluator.score_global(whole)

    def losses(self, task: EvaluationTask, broadcast: BroadcastBytes) -> dict[int, float]:
        """The loss on its training samples of the model that each of the clients would receive now."""
        common = self.rounds.decode(broadcast.common, task.round)
        losses = {}
        for member in task.members:
            view = self.rounds.view(task.round, task.lr, member, common, broadcast)
            score = self.evaluator.score(
                self.algorithm.personal_model(view.received, view.state), member.client, "train"
            )
            losses[member.client] = math.inf if score is None else score.loss
        return losses
