"""The Ray backend: one message a worker a round; payloads never enter the driver."""

from __future__ import annotations

import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import ray

from spatl_ray.arrays import Integers
from spatl_ray.config import Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.actors import (
    NOTHING,
    AggregatorActor,
    ClientActor,
    Held,
    Job,
    attempts_folder,
)
from spatl_ray.engine.attempts import tries
from spatl_ray.engine.backend import (
    Done,
    EvaluationPlan,
    Following,
    RoundPlan,
    Say,
    needs_payloads,
    nothing_follows,
    say_nothing,
    settled,
)
from spatl_ray.engine.capacity import Kind, kind_of
from spatl_ray.engine.clock import surplus
from spatl_ray.engine.folders import node_folders
from spatl_ray.engine.gpu_probe import best, told
from spatl_ray.engine.messages import (
    ClientReport,
    Evaluation,
    Facts,
    GroupTask,
    Losses,
    RoundOutcome,
    StepReport,
)
from spatl_ray.engine.placed_states import PlacedStates
from spatl_ray.engine.profile import Span
from spatl_ray.engine.ray_cluster import RayCluster
from spatl_ray.engine.ray_probe import measured
from spatl_ray.engine.speeds import Speeds
from spatl_ray.errors import EngineError
from spatl_ray.parameters import Arrays

NOWHERE = -1
"""The home of a client whose state no worker has in memory."""

FOR_EVER = -1
"""How often a ClientActor is started again: a client may take its process along in every round of a run."""

RETRIES = 4
"""How often a call of a ClientActor is made again whose process died of no client that is known."""

START_SECONDS = 900.0
"""How long actors may take to come up."""


@dataclass(frozen=True)
class _Begun:
    """A round that the workers have: references to what is or will be there.

    `waiting` maps each group's reports to who makes them, and of what; `brought` are the client states that
    had to move first.
    """

    broadcast: Any
    tasks: Sequence[GroupTask]
    groups: Sequence[Any]
    waiting: Mapping[Any, tuple[Any, GroupTask]]
    brought: Sequence[Any]


class RayBackend:
    """ClientActors and one AggregatorActor on a Ray cluster.

    Args:
        experiment: the config.
        data: the federated data set; it is put into the object store once.
        states: folder of client states, on storage that all nodes share.
        say: told what takes long while everything comes up.
    """

    def __init__(
        self, experiment: Experiment, data: FederatedData, states: Path, say: Say = say_nothing
    ) -> None:
        self._experiment = experiment
        self._data = data
        self._states = states
        self._full = needs_payloads(experiment)
        self._picks = experiment.asked_size > experiment.cohort_size
        self._say = say
        self._cluster = RayCluster(experiment.engine)
        self._held = NOTHING
        self._workers: list[Any] = []
        self._nodes: list[object] = []
        self._folders: list[str] = []
        self._homes = np.full(experiment.clients, NOWHERE, dtype=np.int64)
        self._aggregator: Any = None
        self._begun: _Begun | None = None
        self._told: dict[Kind, str] = {}
        self._token = uuid4().hex[:12]

    def start(self, again: bool = False) -> list[Facts]:
        """Start or join Ray, check its resources, bring the actors up."""
        self._cluster.connect()
        engine, paths = self._experiment.engine, tuple(sys.path)
        say = say_nothing if again else self._say
        if engine.actors_per_gpu == "auto":
            self._measure_gpus(paths, say)
        places = self._cluster.places(fewer=again, say=say)
        aggregator: Any = AggregatorActor.options(num_cpus=0)  # type: ignore[attr-defined]
        self._aggregator = aggregator.remote(self._experiment, self._data.dataset.spec, paths)
        client: Any = ClientActor
        common = {
            "num_cpus": engine.num_cpus,
            "max_restarts": FOR_EVER,
            "max_task_retries": RETRIES,
        }
        self._workers = [
            client.options(**common, **place).remote(index, paths)
            for index, place in enumerate(places)
        ]
        folders = self._own_folders() if engine.state_mirror else ()
        experiment = self._experiment
        job = Job(experiment, self._data, self._states, self._token, folders, experiment.run_id)
        self._held, self._folders = Held(ray.put(job)), sorted({folder for _, folder in folders})
        facts: list[Facts] = self._started([w.facts.remote(self._held) for w in self._workers])
        self._check_server(facts)
        if not engine.allow_mixed:  # Nobody who follows one that dies may give other bits.
            kinds = frozenset(fact.fingerprint for fact in facts)
            self._held = replace(self._held, fingerprints=kinds)
        self._nodes = self._cluster.nodes = [fact.hardware["node"] for fact in facts]
        self._speeds = Speeds(self._nodes)
        mirrored = self._experiment.clients if engine.state_mirror else None
        held, get = self._held, self._cluster.get
        if facts[0].has_states:
            workers, nodes = self._workers, self._nodes
        else:  # What lies there is an earlier run's.
            workers, nodes, mirrored = self._workers[:1], self._nodes[:1], None
        self._placed = PlacedStates(workers, nodes, held, get, self._states, mirrored, again)
        return self._with_gpus(facts)

    def _measure_gpus(self, paths: Sequence[str], say: Say) -> None:
        """Find out how many actors a GPU of each kind is best shared by, unless that is known already."""
        there, known = self._cluster.there(), self._cluster.measured
        if not any(node.get("GPU") and kind_of(node) not in known for node in there.values()):
            return
        say("measuring how many actors share a GPU best")
        for kind, (tried, memory) in measured(
            self._started, self._experiment, self._data, paths, there, known
        ).items():
            known[kind] = best(tried, memory)
            self._told[kind] = told(tried, memory)

    def _with_gpus(self, facts: Sequence[Facts]) -> list[Facts]:
        """The workers' facts, with what was measured of their nodes' GPUs."""
        if not self._told:
            return list(facts)
        kinds = {name: kind_of(node) for name, node in self._cluster.there().items()}
        found = []
        for fact in facts:
            kind = kinds.get(str(fact.hardware["node"]), ())
            gpu = {"gpu": " ".join(kind), "shared": self._told.get(kind, "")}
            found.append(replace(fact, hardware={**fact.hardware, **gpu}))
        return found

    def _started(self, references: list[Any]) -> list[Any]:
        """What starting actors answer."""
        try:
            return list(self._cluster.get(references, START_SECONDS))
        except TimeoutError as error:
            raise EngineError(
                f"the actors did not start within {START_SECONDS:.0f} seconds"
            ) from error

    def _own_folders(self) -> tuple[tuple[str, str], ...]:
        """Each worker's node, and its folder of states there."""
        found = self._started([worker.node.remote(self._states) for worker in self._workers])
        folders = node_folders(dict(found))
        return tuple((node, folders[node]) for node, _ in found)

    def state_folders(self) -> list[str]:
        """The folders of nodes that hold states of their own."""
        return self._folders

    def forget_states(self) -> None:
        """Remove client states of an earlier run of the same id, on every node."""
        self._placed.forget()

    def restore(
        self, server: Arrays, round_: int, last: Integers, folders: Sequence[str] = ()
    ) -> None:
        """Go back to before a round."""
        self._cluster.get(self._aggregator.restore.remote(server, round_))
        self._placed.restore(last, folders)

    def sync(self, clients: Integers) -> None:
        """Have the disk hold the states of some clients."""
        self._placed.sync(clients)

    def forget_before(self, oldest: int) -> None:
        """No checkpoint before this round is restored any more."""
        self._placed.forget_before(oldest)

    def _check_server(self, facts: list[Facts]) -> None:
        """The aggregator's process must do the same arithmetic as the workers', if these do the same one."""
        server = self._cluster.get(self._aggregator.facts.remote())
        on_cpu = {f.fingerprint for f in facts if f.hardware["device"] == "cpu"}
        if len(on_cpu) == 1 and on_cpu != {server} and not self._experiment.engine.allow_mixed:
            raise EngineError(
                "the aggregator must share the workers' CPU capability and software set, got "
                f"{server} beside {'; '.join(sorted(on_cpu))}. engine.allow_mixed=true runs it anyway"
            )

    def train(
        self, plan: RoundPlan, done: Done, following: Following = nothing_follows
    ) -> RoundOutcome:
        """Run a round: references go from workers to the aggregator, reports come here.

        Once they are there, the next round begins: its broadcast waits in the aggregator's queue for
        this round's step, its groups wait for the broadcast, and the driver waits for neither.
        """
        start = time.perf_counter()
        begun, self._begun = self._begun or self._begin(plan), None
        self._cluster.get(list(begun.brought))
        reports: list[ClientReport] = []
        late: frozenset[int] = frozenset()
        if self._picks:
            reports = self._collect(list(begun.waiting), done)
            late = surplus(reports, self._experiment.cohort_size)
        # With nobody to leave out, the aggregator starts as soon as the groups are there.
        sent = begun.groups if self._full else self._by_node(begun.tasks, begun.groups)
        step = self._aggregator.step.remote(plan.round, len(sent), late, *sent)
        if not self._picks:
            reports = self._collect(list(begun.waiting), done)
        trained = time.perf_counter()
        self._learn_speeds(plan, begun.tasks, reports)
        copies = [] if self._full else self._copy(begun, reports)
        if not self._full and (after := following(reports)) is not None:
            self._begun = self._begin(after)
        stepped: StepReport = self._cluster.get(step)
        if self._full:
            self._cluster.get(
                [
                    worker.commit.remote(self._held, task, begun.broadcast, step)
                    for worker, task in begun.waiting.values()
                ]
            )
        final = settled(reports, stepped.verdicts)
        self._cluster.get(copies or self._copy(begun, final))
        return RoundOutcome(final, trained - start, stepped.seconds, stepped.drift)

    def _learn_speeds(
        self, plan: RoundPlan, tasks: Sequence[GroupTask], reports: Sequence[ClientReport]
    ) -> None:
        """Take in how long each worker's clients took."""
        costs = dict(zip((m.client for m in plan.members), plan.costs, strict=True))
        workers = {client: task.group for task in tasks for client in task.clients}
        self._speeds.learn(
            (workers[r.client], costs[r.client], r.seconds) for r in reports if r.seconds
        )

    def _copy(self, begun: _Begun, reports: Sequence[ClientReport]) -> list[Any]:
        """Have a round's new states copied to where they have to be, too."""
        return self._placed.copy(begun.tasks, {r.client for r in reports if r.counts})

    def _begin(self, plan: RoundPlan) -> _Begun:
        """Give a round's groups to the workers."""
        clients, known = [m.client for m in plan.members], {m.last for m in plan.members}
        broadcast = self._aggregator.broadcast.remote(plan.round, clients, known)
        groups, waiting = [], {}
        tasks = plan.groups(len(self._workers), self._homes, self._speeds.of_workers())
        brought = self._placed.bring([(task.group, task) for task in tasks], plan.kept)
        for task in tasks:
            worker = self._workers[task.group]
            method = worker.train_payloads if self._full else worker.train
            train = method.options(num_returns=2, max_task_retries=self._retries(task))
            group, reported = train.remote(self._held, task, broadcast)
            groups.append(group)
            waiting[reported] = (worker, task)
            self._homes[[member.client for member in task.members]] = task.group
        return _Begun(broadcast, tasks, groups, waiting, brought)

    def _retries(self, task: GroupTask) -> int:
        """How often a group is begun again: each of its clients may take processes along until it fails."""
        return RETRIES + len(task.members) * (tries(self._experiment.engine) + 1)

    def _by_node(self, tasks: Sequence[GroupTask], groups: Sequence[Any]) -> list[Any]:
        """The groups' sums; with several nodes one a node: what crosses the network grows with nodes only."""
        if len(set(self._nodes)) == 1:
            return list(groups)
        there: dict[object, list[tuple[int, Any]]] = defaultdict(list)
        for task, group in zip(tasks, groups, strict=True):
            there[self._nodes[task.group]].append((task.group, group))
        sent = []
        for own in there.values():
            (*_, (last, _)), sums = own, [group for _, group in own]
            combine = self._workers[last].combine
            sent.append(sums[0] if len(sums) == 1 else combine.remote(self._held, *sums))
        return sent

    def evaluate(self, plan: EvaluationPlan) -> Evaluation:
        """Evaluate the panel on all workers."""
        start = time.perf_counter()
        broadcast = self._aggregator.broadcast.remote(plan.round, [m.client for m in plan.members])
        speeds = self._speeds.of_workers()
        # The last one of equally fast workers has the lightest group: it evaluates the global model as well.
        most = max(range(len(speeds)), key=lambda worker: (speeds[worker], worker))
        models: list[Any] = [None] * len(speeds)
        models[most] = self._aggregator.global_model.remote()
        tasks = plan.tasks(len(self._workers), self._homes, speeds)
        brought = self._placed.bring(list(enumerate(tasks)))
        pending = [
            worker.evaluate.remote(self._held, task, broadcast, model)
            for worker, task, model in zip(self._workers, tasks, models, strict=True)
        ]
        self._cluster.get(brought)
        answers = self._cluster.get(pending)
        clients = sorted((s for scores, _ in answers for s in scores), key=lambda s: s.client)
        global_test = next((score for _, score in answers if score is not None), None)
        return Evaluation(tuple(clients), global_test, time.perf_counter() - start)

    def losses(self, plan: EvaluationPlan) -> Losses:
        """Training losses of the models that the plan's clients would receive now."""
        clients, known = [m.client for m in plan.members], {m.last for m in plan.members}
        broadcast = self._aggregator.broadcast.remote(plan.round, clients, known)
        tasks = plan.tasks(len(self._workers), self._homes, self._speeds.of_workers())
        brought = self._placed.bring(list(enumerate(tasks)))
        pending = [
            worker.losses.remote(self._held, task, broadcast)
            for worker, task in zip(self._workers, tasks, strict=True)
        ]
        self._cluster.get(brought)
        answers = self._cluster.get(pending)
        sizes = self._cluster.get(self._aggregator.sizes.remote(broadcast, plan.members))
        return Losses({c: loss for answer in answers for c, loss in answer.items()}, sizes)

    def arrays(self) -> Arrays:
        """The server's arrays."""
        arrays: Arrays = self._cluster.get(self._aggregator.arrays.remote())
        return arrays

    def snapshot(self) -> tuple[int, Arrays]:
        """The round to come, and the server's arrays before it, also in the middle of a round."""
        taken: tuple[int, Arrays] = self._cluster.get(self._aggregator.snapshot.remote())
        return taken

    def spans(self) -> Mapping[str, tuple[Span, ...]]:
        """What each actor did since the last call."""
        if self._aggregator is None:  # while they are replaced
            return {}
        pending = {
            f"client-actor-{index}": worker.spans.remote(self._held)
            for index, worker in enumerate(self._workers)
        }
        pending["aggregator"] = self._aggregator.spans.remote()
        return dict(zip(pending, self._cluster.get(list(pending.values())), strict=True))

    def close(self) -> None:
        """Stop the actors, and Ray if it was started here."""
        shutil.rmtree(attempts_folder(self._token), ignore_errors=True)  # of this node
        self._cluster.close([*self._workers, self._aggregator])
        self._workers, self._aggregator, self._held, self._begun = [], None, NOTHING, None
        self._homes.fill(NOWHERE)

    def _collect(self, waiting: list[Any], done: Done) -> list[ClientReport]:
        """All groups' reports, telling `done` as each group ends."""
        reports: list[ClientReport] = []
        while waiting:
            ready, waiting = self._cluster.wait(waiting)
            for reference in ready:
                reported = self._cluster.get(reference)
                reports.extend(reported)
                done(len(reported))
        return reports
