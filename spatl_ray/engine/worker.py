"""A worker: trains and evaluates groups of virtual clients, one after the other.

`train` is pure for a given round: it reads client states from before that round, so that a retried
call gives the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from spatl_ray import seeding
from spatl_ray.aggregation.masked import Partial
from spatl_ray.aggregation.verdict import Verdict
from spatl_ray.algorithms.base import ClientView, Proposal
from spatl_ray.config import Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.blueprint import TORCH_TYPES, Blueprint, make_blueprint
from spatl_ray.engine.environment import fingerprint, hardware
from spatl_ray.engine.evaluation import Evaluator
from spatl_ray.engine.flops import training_flops
from spatl_ray.engine.messages import (
    BroadcastBytes,
    ClientReport,
    ClientScore,
    Envelope,
    EvaluationTask,
    Facts,
    GroupPayloads,
    GroupSums,
    GroupTask,
    Member,
)
from spatl_ray.engine.population import Population
from spatl_ray.engine.receive import Received, receive
from spatl_ray.engine.report import layer_reports, sent_share
from spatl_ray.state.store import StateStore
from spatl_ray.training.evaluate import Score
from spatl_ray.training.local import LocalResult, Trainer
from spatl_ray.update import ClientState, Parts, Update
from spatl_ray.wire.codec import decode_broadcast, encode


@dataclass(frozen=True, eq=False)
class Outcome:
    """A client's trained round, before its verdict."""

    member: Member
    view: ClientView
    results: tuple[LocalResult, ...]
    proposal: Proposal
    sent: Update
    payload: bytes


class Worker:
    """Runs virtual clients on one device.

    Args:
        experiment: the config.
        data: the federated data set.
        states: folder of client states, shared by all workers of the run.
        device: to train on.
        name: for the results' column `actor`.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: FederatedData,
        states: Path,
        device: torch.device,
        name: str,
    ) -> None:
        torch.set_num_threads(1)
        self.experiment = experiment
        self.name = name
        self.device = device
        dataset = data.dataset
        self.blueprint: Blueprint = make_blueprint(
            experiment, dataset.shape, dataset.classes, device
        )
        self.algorithm = self.blueprint.algorithm
        self.store = StateStore(states, self.algorithm.start_client(self.blueprint.initial))
        self.population = Population(
            data,
            device,
            TORCH_TYPES[experiment.training.dtype],
            experiment.evaluation.global_samples,
            experiment.seed,
        )
        self.trainer = Trainer(self.blueprint.model, experiment.training)
        self.evaluator = Evaluator(self.blueprint, self.population, self.trainer)
        self._flops = training_flops(self.blueprint.model, dataset.shape)
        self._pending: dict[int, Outcome] = {}

    def facts(self) -> Facts:
        """What the driver must know before the first round."""
        layout = self.algorithm.layout
        return Facts(
            fingerprint(self.device),
            hardware(self.device),
            layout.shared.size,
            layout.local.size,
            layout.shared,
        )

    # --- training -------------------------------------------------------------------------------

    def train(
        self, task: GroupTask, broadcast: BroadcastBytes
    ) -> tuple[GroupSums, tuple[ClientReport, ...]]:
        """Train a group and sum its accepted updates; their states are committed.

        A client that fails is reported, not raised.
        """
        common = self._decode(broadcast.common)
        partial = Partial(self.algorithm.accumulators(), self.blueprint.levels)
        reports = []
        for member in task.members:
            try:
                reports.append(self._contribute(task, member, common, broadcast, partial))
            except Exception as error:
                reports.append(self._failure(member, error))
        accepted = tuple(r.client for r in reports if r.status in ("accepted", "clipped"))
        return GroupSums(task.round, task.group, accepted, partial), tuple(reports)

    def train_payloads(
        self, task: GroupTask, broadcast: BroadcastBytes
    ) -> tuple[GroupPayloads, tuple[ClientReport, ...]]:
        """Train a group for a rule that needs every update; states wait for `commit`."""
        common = self._decode(broadcast.common)
        envelopes, reports = [], []
        self._pending = {}
        for member in task.members:
            try:
                outcome, seconds = self._run(task, member, common, broadcast)
            except Exception as error:
                reports.append(self._failure(member, error))
                continue
            self._pending[member.client] = outcome
            remembered = self.algorithm.remembered(outcome.view.state)
            envelopes.append(Envelope(member.client, member.weights, outcome.payload, remembered))
            reports.append(self._report(outcome, "pending", "", broadcast, seconds))
        return GroupPayloads(task.round, task.group, task.lr, tuple(envelopes)), tuple(reports)

    def commit(self, round_: int, verdicts: Mapping[int, Verdict]) -> None:
        """Commit the states of the last `train_payloads`, by the aggregator's verdicts."""
        for client, outcome in self._pending.items():
            if outcome.view.round == round_ and verdicts[client].counts:
                received = self._receive(outcome)
                self._write(outcome, verdicts[client].applied(received.update))
        self._pending = {}

    def _contribute(
        self,
        task: GroupTask,
        member: Member,
        common: Parts,
        broadcast: BroadcastBytes,
        partial: Partial,
    ) -> ClientReport:
        """Train one client, judge its decoded update, sum it and commit its state."""
        outcome, seconds = self._run(task, member, common, broadcast)
        received = self._receive(outcome)
        verdict = received.verdict
        if verdict.counts:
            self._write(outcome, received.update)
            partial.add(received.terms, member.weights)
        return self._report(outcome, verdict.status, verdict.reason, broadcast, seconds)

    def _run(
        self, task: GroupTask, member: Member, common: Parts, broadcast: BroadcastBytes
    ) -> tuple[Outcome, float]:
        """Train one client and encode what it would send; with the seconds that took."""
        start = time.perf_counter()
        view, samples = self._view(task.round, task.lr, member.client, common, broadcast)
        results = []
        for index, local_task in enumerate(self.algorithm.tasks(view)):
            key = (self.experiment.seed, f"train {index}", task.round, member.client)
            with seeding.torch_seeded(*key):
                results.append(
                    self.trainer.run(local_task, *samples, task.lr, seeding.generator(*key))
                )
        proposal = self.algorithm.propose(view, results)
        sent = Update(task.round, member.client, results[0].steps, view.samples, proposal.parts)
        last = self.algorithm.remembered(view.state)
        payload = encode(sent, self.algorithm.spaces(), last)
        outcome = Outcome(member, view, tuple(results), proposal, sent, payload)
        return outcome, time.perf_counter() - start

    def _view(
        self, round_: int, lr: float, client: int, common: Parts, broadcast: BroadcastBytes
    ) -> tuple[ClientView, tuple[torch.Tensor, torch.Tensor]]:
        """What a client sees, and its training samples."""
        state = self.store.read(client, before=round_)
        samples = self.population.samples(client, "train")
        personal = self._decode(broadcast.personal.get(client, b""))
        view = ClientView(
            client=client,
            round=round_,
            lr=lr,
            samples=len(samples[1]),
            received=self.algorithm.receive({**common, **personal}, state),
            state=state,
            validate=lambda vector: self.evaluator.score(vector, client, "validation"),
        )
        return view, samples

    def _receive(self, outcome: Outcome) -> Received:
        """The server's side of a client's payload."""
        view = outcome.view
        remembered = self.algorithm.remembered(view.state)
        expected = replace(outcome.sent, parts={})
        return receive(
            self.blueprint, outcome.payload, remembered, view.received, expected, view.lr
        )

    def _write(self, outcome: Outcome, update: Update) -> None:
        """Commit a client's state."""
        state: ClientState = self.algorithm.commit(outcome.view, outcome.proposal, update)
        self.store.write(outcome.view.client, outcome.view.round, state)

    def _decode(self, payload: bytes) -> Parts:
        """The parts of a broadcast; none if nothing was sent."""
        return decode_broadcast(payload, self.algorithm.spaces()).parts if payload else {}

    # --- reports --------------------------------------------------------------------------------

    def _failure(self, member: Member, error: Exception) -> ClientReport:
        """The report of a client that raised."""
        reason = f"{type(error).__name__}: {error}"
        return ClientReport(member.client, "failed", reason, actor=self.name)

    def _report(
        self, outcome: Outcome, status: str, reason: str, broadcast: BroadcastBytes, seconds: float
    ) -> ClientReport:
        """The report of a client that trained."""
        results, client = outcome.results, outcome.member.client
        spaces = self.algorithm.spaces()
        report = ClientReport(
            client=client,
            status=status,
            reason=reason,
            samples=outcome.view.samples,
            steps=sum(r.steps for r in results),
            train_loss=results[0].loss,
            bytes_up=len(outcome.payload),
            bytes_down=broadcast.size(client),
            density=sent_share(outcome.sent.parts, spaces, self.algorithm.layout),
            flops=self._flops * sum(r.samples for r in results),
            seconds=seconds,
            actor=self.name,
            layers=layer_reports(outcome.proposal, self.algorithm.layout),
        )
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
            after_global=self.evaluator.score_global(end),
            inference_local=kept,
        )

    # --- evaluation -----------------------------------------------------------------------------

    def evaluate(
        self, task: EvaluationTask, broadcast: BroadcastBytes
    ) -> tuple[tuple[ClientScore, ...], Score | None]:
        """Score the models that panel members would receive now, and the global model if asked."""
        common = self._decode(broadcast.common)
        scores = []
        for member in task.members:
            view, samples = self._view(task.round, task.lr, member.client, common, broadcast)
            scores.extend(self.evaluator.client(view, samples, member.trained))
        return tuple(scores), self._global(common) if task.with_global else None

    def _global(self, common: Parts) -> Score | None:
        """The global model's score, if there is one model for all."""
        vector = self.algorithm.global_model(self.algorithm.receive(common, {}))
        return None if vector is None else self.evaluator.score_global(vector)
