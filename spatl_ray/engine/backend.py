"""What the rounds loop needs of a backend, and the serial one: the definition of every number."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from spatl_ray.aggregation.verdict import Verdict
from spatl_ray.arrays import Integers
from spatl_ray.config import Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.aggregator import Aggregator
from spatl_ray.engine.clock import surplus
from spatl_ray.engine.device import choose_device
from spatl_ray.engine.messages import (
    ClientReport,
    Evaluation,
    EvaluationTask,
    Facts,
    GroupPayloads,
    GroupSums,
    GroupTask,
    Losses,
    Member,
    PanelMember,
    RoundOutcome,
)
from spatl_ray.engine.profile import Span
from spatl_ray.engine.schedule import assign
from spatl_ray.engine.worker import Worker
from spatl_ray.parameters import Arrays
from spatl_ray.state.store import forget_undone, sync_states

Done = Callable[[int], None]
"""Called with the number of further clients whose training ended."""

Following = Callable[[Sequence[ClientReport]], "RoundPlan | None"]
"""Called with a round's final reports: the next round, if it may begin before this one's model is there."""

Say = Callable[[str], None]
"""Told of something that may take long before the first round."""


def say_nothing(step: str) -> None:
    """Nobody listens."""


def nothing_follows(reports: Sequence[ClientReport]) -> None:
    """The next round waits until this one has ended."""


@dataclass(frozen=True)
class RoundPlan:
    """One round.

    Attributes:
        members: who trains.
        costs: predicted cost of each.
        flops: of training on one sample.
        elapsed: simulated seconds of the round that have passed before.
        together: clients that are trained at once.
        kept: rounds of the checkpoints that can be restored.
    """

    round: int
    lr: float
    members: tuple[Member, ...]
    costs: tuple[float, ...]
    flops: float = 0.0
    elapsed: float = 0.0
    together: int = 1
    kept: tuple[int, ...] = ()

    def groups(
        self, workers: int, homes: Integers | None = None, speeds: Sequence[float] | None = None
    ) -> list[GroupTask]:
        """The members placed on workers; those without work are left out.

        Args:
            workers: number of workers.
            homes: the worker that holds the state of each client of the federation, -1 for none.
            speeds: of the workers, shape (workers,); None for equal ones.
        """
        batches, costs = self._batches()
        if self.together > 1:
            homes = None  # A batch is no client's.
        placed = assign(costs, workers, _homes_of([first for first, *_ in batches], homes), speeds)
        return [
            GroupTask(
                round=self.round,
                group=index,
                lr=self.lr,
                batches=tuple(batches[i] for i in group),
                flops=self.flops,
                elapsed=self.elapsed,
                kept=self.kept,
            )
            for index, group in enumerate(placed)
            if group
        ]

    def _batches(self) -> tuple[list[tuple[Member, ...]], list[float]]:
        """Who is trained at once, and what that costs; the number of workers has no part in it."""
        order = list(range(len(self.members)))
        if self.together > 1:
            order.sort(key=lambda i: self.members[i].client)
        cuts = [order[i : i + self.together] for i in range(0, len(order), self.together)]
        return (
            [tuple(self.members[i] for i in cut) for cut in cuts],
            [sum(self.costs[i] for i in cut) for cut in cuts],
        )


@dataclass(frozen=True)
class EvaluationPlan:
    """One evaluation: of the model that round `round` would start from."""

    round: int
    lr: float
    members: tuple[PanelMember, ...]
    costs: tuple[float, ...]

    def tasks(
        self, workers: int, homes: Integers | None = None, speeds: Sequence[float] | None = None
    ) -> list[EvaluationTask]:
        """The panel placed on workers; some may be empty.

        Args:
            workers: number of workers.
            homes: the worker that holds the state of each client of the federation, -1 for none.
            speeds: of the workers, shape (workers,); None for equal ones.
        """
        placed = assign(self.costs, workers, _homes_of(self.members, homes), speeds)
        return [
            EvaluationTask(self.round, self.lr, tuple(self.members[i] for i in group), None)
            for group in placed
        ]


def _homes_of(
    members: Sequence[Member | PanelMember], homes: Integers | None
) -> Sequence[int] | None:
    """The worker that holds each member's state."""
    return None if homes is None else [int(homes[member.client]) for member in members]


class Backend(Protocol):
    """Runs rounds. Whatever the backend, the numbers are the serial one's."""

    def start(self, again: bool = False) -> list[Facts]:
        """Bring everything up; one entry a worker.

        Args:
            again: for a run that goes on: fewer workers than it began with will do.
        """

    def forget_states(self) -> None:
        """Remove client states of an earlier run of the same id."""

    def state_folders(self) -> Sequence[str]:
        """The folders of nodes that hold states of their own; a checkpoint names them."""

    def restore(
        self, server: Arrays, round_: int, last: Integers, folders: Sequence[str] = ()
    ) -> None:
        """Go back to before a round.

        Args:
            server: the server's arrays.
            round_: the round.
            last: the round of each client's state, -1 for the initial one, shape (clients,).
            folders: what `state_folders` said then; what others hold is of no use.

        Raises:
            StateError: a client's state is lost.
        """

    def sync(self, clients: Integers) -> None:
        """Have the disk hold the states of some clients."""

    def forget_before(self, oldest: int) -> None:
        """No checkpoint before this round is restored any more."""

    def train(
        self, plan: RoundPlan, done: Done, following: Following = nothing_follows
    ) -> RoundOutcome:
        """Run a round: train, combine, commit.

        A backend that can begin the next round early asks for its plan once, and is given it again then.
        """

    def evaluate(self, plan: EvaluationPlan) -> Evaluation:
        """Evaluate the panel."""

    def losses(self, plan: EvaluationPlan) -> Losses:
        """Training losses of the models that the plan's clients would receive now."""

    def arrays(self) -> Arrays:
        """The server's arrays."""

    def snapshot(self) -> tuple[int, Arrays]:
        """The round to come, and the server's arrays before it, also in the middle of a round."""

    def spans(self) -> Mapping[str, tuple[Span, ...]]:
        """What each process did since the last call, by its name; nothing without `engine.profile`."""

    def close(self) -> None:
        """Release everything; may be called twice."""


def settled(
    reports: Sequence[ClientReport], verdicts: Mapping[int, Verdict]
) -> tuple[ClientReport, ...]:
    """The reports in the order of their clients, with late verdicts filled in."""
    final = []
    for report in sorted(reports, key=lambda r: r.client):
        if report.status == "pending":
            verdict = verdicts[report.client]
            report = replace(report, status=verdict.status, reason=verdict.reason)
        final.append(report)
    return tuple(final)


def needs_payloads(experiment: Experiment) -> bool:
    """Whether updates reach the aggregator one by one, because who counts is known only there."""
    waits_for_some = experiment.asked_size > experiment.cohort_size
    return experiment.aggregation.rule != "mean" or waits_for_some


class SerialBackend:
    """Everything in this process, without Ray.

    Args:
        experiment: the config.
        data: the federated data set.
        states: folder of client states.
        groups: number of groups that a round is cut into, as if there were as many workers.
    """

    def __init__(
        self, experiment: Experiment, data: FederatedData, states: Path, groups: int = 1
    ) -> None:
        self._experiment = experiment
        self._data = data
        self._states = states
        self._groups = groups
        self._full = needs_payloads(experiment)

    def start(self, again: bool = False) -> list[Facts]:
        """Build worker and aggregator."""
        device = choose_device(self._experiment.engine)
        self.worker = Worker(self._experiment, self._data, self._states, device, "serial")
        self.aggregator = Aggregator(self._experiment, self._data.dataset.spec)
        return [self.worker.facts()]

    def forget_states(self) -> None:
        """Remove client states of an earlier run of the same id."""
        self.worker.store.forget()

    def state_folders(self) -> Sequence[str]:
        """None: there is one folder."""
        return ()

    def restore(
        self, server: Arrays, round_: int, last: Integers, folders: Sequence[str] = ()
    ) -> None:
        """Go back to before a round."""
        self.aggregator.restore(server, round_)
        self.worker.store.restore(last)

    def sync(self, clients: Integers) -> None:
        """Have the disk hold the states of some clients."""
        sync_states(self._states, clients)

    def forget_before(self, oldest: int) -> None:
        """No checkpoint before this round is restored any more."""
        forget_undone(self._states, oldest)

    def train(
        self, plan: RoundPlan, done: Done, following: Following = nothing_follows
    ) -> RoundOutcome:
        """Run a round, one group after the other; the next one waits."""
        start = time.perf_counter()
        clients, known = [m.client for m in plan.members], {m.last for m in plan.members}
        broadcast = self.aggregator.broadcast(plan.round, clients, known)
        run = self.worker.train_payloads if self._full else self.worker.train
        groups: list[GroupSums | GroupPayloads] = []
        reports: list[ClientReport] = []
        tasks = plan.groups(self._groups)
        for task in tasks:
            group, reported = run(task, broadcast)
            groups.append(group)
            reports.extend(reported)
            done(len(reported))
        trained = time.perf_counter()
        late = surplus(reports, self._experiment.cohort_size)
        step = self.aggregator.step(plan.round, len(tasks), groups, late)
        if self._full:
            for task in tasks:
                self.worker.commit(task, broadcast, step.verdicts)
        final = settled(reports, step.verdicts)
        return RoundOutcome(final, trained - start, step.seconds, step.drift)

    def evaluate(self, plan: EvaluationPlan) -> Evaluation:
        """Evaluate the panel."""
        start = time.perf_counter()
        broadcast = self.aggregator.broadcast(plan.round, [m.client for m in plan.members])
        (task,) = plan.tasks(1)
        task = replace(task, global_model=self.aggregator.global_model())
        clients, global_test = self.worker.evaluate(task, broadcast)
        ordered = tuple(sorted(clients, key=lambda score: score.client))
        return Evaluation(ordered, global_test, time.perf_counter() - start)

    def losses(self, plan: EvaluationPlan) -> Losses:
        """Training losses of the models that the plan's clients would receive now."""
        clients = [m.client for m in plan.members]
        known = {m.last for m in plan.members}
        broadcast = self.aggregator.broadcast(plan.round, clients, known)
        (task,) = plan.tasks(1)
        values = self.worker.losses(task, broadcast)
        return Losses(values, {m.client: broadcast.size(m) for m in plan.members})

    def arrays(self) -> Arrays:
        """The server's arrays."""
        return self.aggregator.arrays()

    def snapshot(self) -> tuple[int, Arrays]:
        """The round to come, and the server's arrays before it."""
        return self.aggregator.snapshot()

    def spans(self) -> Mapping[str, tuple[Span, ...]]:
        """Of worker and aggregator, one after the other."""
        return {
            self.worker.name: self.worker.spans.take(),
            "aggregator": self.aggregator.spans.take(),
        }

    def close(self) -> None:
        """Nothing to release."""
