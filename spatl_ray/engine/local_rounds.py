"""Clients' rounds: what they receive, how they train, what they would send."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from spatl_ray import seeding
from spatl_ray.algorithms.base import ClientView
from spatl_ray.engine.attacks import Attack
from spatl_ray.engine.attempts import Attempts, ClientDiedError, limited, tries
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.engine.evaluation import Evaluator
from spatl_ray.engine.messages import BroadcastBytes, ClientReport, GroupTask, Member, PanelMember
from spatl_ray.engine.outcome import Outcome, check_finite, report_of_failed, simulated_times
from spatl_ray.engine.profile import Spans
from spatl_ray.errors import AggregationError, ConfigError, EngineError, StateError, WireError
from spatl_ray.logs import about, logger
from spatl_ray.state.store import StateStore
from spatl_ray.training.local import Job, LocalResult, Trainer, go_together
from spatl_ray.update import Parts, Update
from spatl_ray.wire.codec import decode_broadcast, encode

log = logger(__name__)

MACHINE_FAULTS = (
    OSError,
    torch.cuda.OutOfMemoryError,
    AggregationError,
    StateError,
    WireError,
)
"""What is never one client's failure: it depends on where the client ran, so the run stops."""

MACHINE_WORDS = ("CUDA", "cuBLAS", "CUBLAS", "cuDNN", "CUDNN")
"""What torch says of the machine in a plain RuntimeError."""

Tried = Outcome | ClientReport
"""What a client would send, or the report of its failure."""


class LocalRounds:
    """Trains clients: alone, which is the reference, or several at once.

    Args:
        blueprint: model and algorithm.
        trainer: trains its model.
        evaluator: scores models, and holds the samples.
        store: of client states.
        spans: what is done is noted there.
        attempts: of earlier processes of the worker.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        trainer: Trainer,
        evaluator: Evaluator,
        store: StateStore,
        spans: Spans,
        attempts: Attempts,
    ) -> None:
        self.blueprint = blueprint
        self.algorithm = blueprint.algorithm
        self.trainer = trainer
        self.evaluator = evaluator
        self.population = evaluator.population
        self.store = store
        self.spans = spans
        self.attempts = attempts
        self.attack = Attack(blueprint.experiment)
        engine = blueprint.experiment.engine
        self._rule, self._timeout = engine.on_client_failure, engine.client_timeout
        self._tries = tries(engine)

    def all_of(self, task: GroupTask, broadcast: BroadcastBytes) -> Iterator[tuple[Member, Tried]]:
        """Train the members of a group, one batch of clients after the other.

        A client that fails is reported, not raised; a fault of the machine is raised.
        """
        self.store.preserve({member.client: member.last for member in task.members}, task.kept)
        common = self.decode(broadcast.common, task.round)
        for batch in task.batches:
            alone = len(batch) == 1 or self.attempts.careful
            found = None if alone else self._together(task, batch, common, broadcast)
            if found is not None:
                yield from zip(batch, found, strict=True)
                continue
            for member in batch:
                yield member, self._tried_again(task, member, common, broadcast)

    def _tried_again(
        self, task: GroupTask, member: Member, common: Parts, broadcast: BroadcastBytes
    ) -> Tried:
        """What a client gives, as often as the config says, or the report of why it failed.

        Raises:
            EngineError: it failed, and the config says that the run ends then.
        """
        client, tried = member.client, 0
        alone = partial(self._alone, task, member, common, broadcast)
        found: Tried | None = self._after_deaths(task, member, broadcast)
        while found is None or (_has_failed(found) and 0 < tried < self._tries):
            with self.attempts.noted(task.round, client):
                found = self._tried(task, member, broadcast, alone)
            tried += 1
        if self._rule == "abort" and isinstance(found, ClientReport) and _has_failed(found):
            raise EngineError(
                f"client {client} failed in round {task.round}, and engine.on_client_failure is abort: "
                f"{found.reason}"
            )
        return found

    def _after_deaths(
        self, task: GroupTask, member: Member, broadcast: BroadcastBytes
    ) -> ClientReport | None:
        """The report of a client that took processes along; else None.

        One death more than a client has tries: a process may be killed from outside.
        """
        deaths = self.attempts.deaths(task.round, member.client)
        if deaths <= self._tries:
            return None
        cause = self.attempts.cause(task.round, member.client)
        error = ClientDiedError(f"its {deaths} processes died{cause and f': {cause}'}")
        with about(round=task.round, client=member.client):
            log.warning("%s", error)
        return report_of_failed(error, task, member, broadcast.size(member))

    def _tried(
        self,
        task: GroupTask,
        member: Member,
        broadcast: BroadcastBytes,
        action: Callable[[], Outcome],
    ) -> Tried:
        """What an action for one client gives, or the report of why it failed."""
        try:
            limit = limited(self._timeout, kill=self.attempts.replaceable)
            with self.spans.of(f"client {member.client}"), limit:
                return action()
        except Exception as error:
            with about(round=task.round, client=member.client):
                log.warning("did not train to its end", exc_info=True)
            if _is_of_the_machine(error):
                raise
            return report_of_failed(error, task, member, broadcast.size(member))

    def _alone(
        self, task: GroupTask, member: Member, common: Parts, broadcast: BroadcastBytes
    ) -> Outcome:
        """Train one client and encode what it would send."""
        start = time.perf_counter()
        with self.spans.of("read state"):
            view = self.view(task.round, task.lr, member, common, broadcast)
        # Dropout, and what an own algorithm draws of torch, which has one generator only.
        with seeding.torch_seeded(view.seed, "client", view.round, view.client):
            results = []
            for job in self._jobs(view):
                with self.spans.of("train"):
                    results += self.trainer.train([job], view.lr)
            return self._outcome(task, member, view, results, broadcast, start)

    def _together(
        self, task: GroupTask, batch: Sequence[Member], common: Parts, broadcast: BroadcastBytes
    ) -> list[Tried] | None:
        """Train several clients at once; None if they have to be trained one by one.

        That is so if their tasks differ in kind, and if anything fails before they are trained: then
        only who is to blame does, and the others' numbers differ by rounding.
        """
        start = time.perf_counter()
        try:
            with self.spans.of("read states"):
                views = [
                    self.view(task.round, task.lr, member, common, broadcast) for member in batch
                ]
            jobs = []
            for view in views:
                with seeding.torch_seeded(view.seed, "client", view.round, view.client):
                    jobs.append(self._jobs(view))
            if len({len(own) for own in jobs}) > 1:
                return None
            turns = list(zip(*jobs, strict=True))
            if not all(map(go_together, turns)):
                return None
            seconds = None if self._timeout is None else self._timeout * len(batch)
            limit = limited(seconds, kill=self.attempts.replaceable)
            with self.spans.of(f"train {len(batch)} clients"), limit:
                steps = [self.trainer.train(turn, task.lr) for turn in turns]
        except Exception as error:
            if _is_of_the_machine(error):
                raise
            return None
        share = (time.perf_counter() - start) / len(batch)
        found = []
        for member, view, *results in zip(batch, views, *steps, strict=True):
            since = time.perf_counter() - share
            send = partial(self._outcome, task, member, view, results, broadcast, since)
            with seeding.torch_seeded(view.seed, "client, trained", view.round, view.client):
                found.append(self._tried(task, member, broadcast, send))
        return found

    def _jobs(self, view: ClientView) -> list[Job]:
        """What a client trains, one after the other."""
        samples = self.population.indexed(view.client, "train")
        return [
            Job(task, samples, view.generator(f"train {index}"))
            for index, task in enumerate(self.algorithm.tasks(view))
        ]

    def _outcome(
        self,
        task: GroupTask,
        member: Member,
        view: ClientView,
        results: Sequence[LocalResult],
        broadcast: BroadcastBytes,
        since: float,
    ) -> Outcome:
        """What a trained client would send.

        Raises:
            DivergedError: a result is not finite.
            ConfigError: it is over the client's budget.
        """
        check_finite(results, view.samples)
        with self.spans.of("propose"):
            proposal = self.algorithm.propose(view, results)
        steps = self._steps(results[0])
        parts = self.attack.sent(view, proposal.parts)
        sent = Update(task.round, member.client, steps, view.samples, parts)
        with self.spans.of("encode"):
            payload = encode(sent, self.algorithm.spaces(), self.algorithm.remembered(view.state))
        budget = view.budget_bytes_up
        if budget is not None and len(payload) > budget:
            raise ConfigError(
                f"devices.budget_bytes_up must be at least {len(payload)}, the bytes of the update, "
                f"got {budget:g} for client {member.client}"
            )
        processed = sum(r.samples for r in results)
        down = broadcast.size(member)
        times = simulated_times(task, member, processed, len(payload), down)
        seconds = time.perf_counter() - since
        return Outcome(member, view, tuple(results), proposal, sent, payload, times, seconds)

    def _steps(self, result: LocalResult) -> int:
        """Local steps in which what is shared was trained: tau_i; all, if nothing is shared."""
        parts = {segment.part for segment in self.algorithm.layout.shared.segments}
        return max((result.part_steps[part] for part in parts), default=result.steps)

    def view(
        self,
        round_: int,
        lr: float,
        member: Member | PanelMember,
        common: Parts,
        broadcast: BroadcastBytes,
    ) -> ClientView:
        """What a client sees."""
        client, device = member.client, getattr(member, "device", None)
        state = self.store.read(client, member.last)
        personal = self.decode(broadcast.personal.get(client, b""), round_)
        return ClientView(
            client=client,
            round=round_,
            lr=lr,
            samples=self.population.size(client, "train"),
            received=self.algorithm.receive({**common, **personal}, state),
            state=state,
            validate=partial(self.evaluator.validate, client),
            gradient_of=partial(self.evaluator.training_gradient, client),
            seed=self.blueprint.experiment.seed,
            budget_bytes_up=None if device is None else device.budget_bytes_up,
            budget_flops=None if device is None else device.budget_flops,
        )

    def decode(self, payload: bytes, round_: int) -> Parts:
        """The parts of a round's broadcast; none if nothing was sent."""
        if not payload:
            return {}
        with self.spans.of("decode"):
            broadcast = decode_broadcast(payload, self.algorithm.spaces())
        if broadcast.round != round_:
            raise WireError(
                f"a broadcast of round {round_} is needed, got one of {broadcast.round}"
            )
        return broadcast.parts


def _has_failed(tried: Tried) -> bool:
    """Whether a client did not train to the end."""
    return isinstance(tried, ClientReport) and tried.status == "failed"


def _is_of_the_machine(error: Exception) -> bool:
    """Whether a failure is not a client's."""
    if isinstance(error, MACHINE_FAULTS):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in MACHINE_WORDS)
