"""Ray actors around worker and aggregator: nothing but the crossing of process borders."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import ray
from ray._private.state import state
from ray.core.generated import common_pb2, gcs_pb2

from spatl_ray.arrays import Integers
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.aggregator import Aggregator
from spatl_ray.engine.attempts import Attempts
from spatl_ray.engine.device import choose_device
from spatl_ray.engine.environment import fingerprint
from spatl_ray.engine.messages import (
    BroadcastBytes,
    ClientReport,
    ClientScore,
    EvaluationTask,
    Facts,
    GroupPayloads,
    GroupSums,
    GroupTask,
    PanelMember,
    StepReport,
)
from spatl_ray.engine.profile import Span
from spatl_ray.engine.worker import Worker
from spatl_ray.errors import LostError
from spatl_ray.logs import logger, set_about, write_to_stderr
from spatl_ray.parameters import Arrays, ModelVector
from spatl_ray.state.store import forget_undone, sync_states
from spatl_ray.training.evaluate import Score

LOW_ON_MEMORY = "Ray ended it because its node was low on memory"


def _node() -> str:
    """The name of this process's node."""
    return str(ray.get_runtime_context().get_node_id())


def _ended(pid: int) -> str:
    """Whether Ray ended a process of this node to free memory; nothing if it does not tell."""
    try:
        # No public call tells it without the dashboard's server.
        table = state._connect_and_get_accessor().get_worker_table()
        parse = gcs_pb2.WorkerTableData.FromString  # type: ignore[attr-defined]
        workers = [parse(row) for row in table]
        own = [w for w in workers if w.pid == pid and w.worker_address.node_id.hex() == _node()]
        low = common_pb2.NODE_OUT_OF_MEMORY  # type: ignore[attr-defined]
        if any(worker.exit_type == low for worker in own):
            return LOW_ON_MEMORY
    except Exception as error:  # of another version of Ray: the death itself is told anyway
        logger(__name__).debug("how process %d ended is not known: %s", pid, error)
    return ""


def extend_path(paths: Sequence[str]) -> None:
    """Let own algorithms and models be imported here from where the driver imports them."""
    sys.path.extend(path for path in paths if path not in sys.path)


@dataclass(frozen=True, eq=False)
class Job:
    """What a worker needs of a run; it lies once in the object store.

    `places` holds each worker's node and the folder of states that this node has of its own; nothing if
    all nodes share the folder. `run_id` is for messages.
    """

    experiment: Experiment
    data: FederatedData
    states: Path
    token: str
    places: tuple[tuple[str, str], ...] = ()
    run_id: str = ""

    def folder(self, index: int) -> Path:
        """Where a worker finds states.

        Raises:
            LostError: it was started again on another node.
        """
        if not self.places:
            return self.states
        node, folder = self.places[index]
        if node != _node():
            raise LostError(
                f"client-actor-{index} has lost node {node}, which has its clients' states"
            )
        return self.states / folder


def attempts_folder(token: str) -> Path:
    """Where each node's workers note what they are at; `token` names the run."""
    return Path(tempfile.gettempdir()) / f"spatl_ray-{token}"


@dataclass(frozen=True, eq=False)
class Held:
    """What each call of a ClientActor names.

    Attributes:
        job: the reference of a `Job`: Ray resolves only references that stand alone.
        fingerprints: of the workers as they came up; none as long as they are not known, or if any may be.
    """

    job: Any
    fingerprints: frozenset[str] = frozenset()

    def check(self, name: str, found: str) -> None:
        """Refuse a process that was started again where it would give other bits.

        Args:
            name: of its worker.
            found: its fingerprint.

        Raises:
            LostError: it is one.
        """
        if self.fingerprints and found not in self.fingerprints:
            raise LostError(
                f"{name} was started again on another kind of machine ({found}; before: "
                f"{'; '.join(sorted(self.fingerprints))}), which engine.allow_mixed=true allows"
            )


NOTHING = Held(None)
"""As long as there is no job."""


@ray.remote
class ClientActor:
    """A long-lived process that trains many virtual clients; see `Worker`.

    Each call names the job, so that an actor that was restarted finds it again.
    """

    def __init__(self, index: int, paths: Sequence[str]) -> None:
        extend_path(paths)  # before the job comes: it may hold an own partition's transform
        write_to_stderr()
        self._index, self._name, self._run_id = index, f"client-actor-{index}", ""
        self._ready: Worker | None = None

    def _worker(self, held: Held) -> Worker:
        """The worker, made at the first call."""
        if self._ready is None:
            job = cast(Job, ray.get(held.job))
            self._run_id = job.run_id
            device = choose_device(job.experiment.engine)
            held.check(self._name, fingerprint(device))
            self._ready = Worker(
                job.experiment,
                job.data,
                job.folder(self._index),
                device,
                self._name,
                self._attempts(job),
            )
        set_about(run_id=self._run_id)  # each call may have a context of its own
        return self._ready

    def _attempts(self, job: Job) -> Attempts:
        """Of the processes that had this name in the same run on this node."""
        file = attempts_folder(job.token) / f"{self._name}.json"
        follows = ray.get_runtime_context().was_current_actor_reconstructed
        return Attempts(file, follows, _ended)

    def node(self, states: Path) -> tuple[str, list[str]]:
        """The name of this process's node, and the folders that nodes have left on its disk."""
        return _node(), [path.name for path in states.glob("*") if path.is_dir()]

    def facts(self, held: Held) -> Facts:
        """What the driver must know before the first round."""
        facts = self._worker(held).facts()
        return replace(facts, hardware={**facts.hardware, "node": _node()})

    def sees(self, file: Path) -> bool:
        """Whether a file that another process wrote is here, too."""
        return file.exists()

    def forget(self, held: Held) -> None:
        """Remove the client states of an earlier run, whichever node wrote them on this disk."""
        self._worker(held).store.forget()
        shutil.rmtree(cast(Job, ray.get(held.job)).states, ignore_errors=True)

    def records(self, held: Held, clients: Mapping[int, int]) -> dict[int, bytes]:
        """Records of clients' states, each of the round that is given, for another node."""
        return self._worker(held).records(clients)

    def keep(self, held: Held, kept: Sequence[int], *records: Mapping[int, bytes]) -> None:
        """Hold records of other nodes on this node's disk."""
        for each in records:
            self._worker(held).keep(each, kept)

    def restore(self, held: Held, last: Integers) -> None:
        """Take client states back to a checkpoint."""
        self._worker(held).store.restore(last)

    def take_back(self, held: Held, last: Integers, known: Collection[str]) -> list[int]:
        """Take this node's states back to a checkpoint; see `Worker.take_back`."""
        return self._worker(held).take_back(last, known)

    def sync(self, held: Held, clients: Integers) -> None:
        """Have this node's disk hold the states of some clients."""
        sync_states(self._worker(held).store.folder, clients)

    def forget_before(self, held: Held, oldest: int) -> None:
        """No checkpoint before this round is restored any more."""
        forget_undone(self._worker(held).store.folder, oldest)

    def train(
        self, held: Held, task: GroupTask, broadcast: BroadcastBytes
    ) -> tuple[GroupSums, tuple[ClientReport, ...]]:
        """Train a group and sum its updates here; the sums stay in the object store."""
        return self._worker(held).train(task, broadcast)

    def combine(self, held: Held, *groups: GroupSums) -> GroupSums:
        """Sums of this node's workers as one, before they cross the network."""
        return self._worker(held).combine(groups)

    def spans(self, held: Held) -> tuple[Span, ...]:
        """What was done since the last call."""
        return self._worker(held).spans.take()

    def train_payloads(
        self, held: Held, task: GroupTask, broadcast: BroadcastBytes
    ) -> tuple[GroupPayloads, tuple[ClientReport, ...]]:
        """Train a group; the payloads go to the aggregator one by one."""
        return self._worker(held).train_payloads(task, broadcast)

    def commit(
        self, held: Held, task: GroupTask, broadcast: BroadcastBytes, step: StepReport
    ) -> None:
        """Commit what `train_payloads` left open."""
        self._worker(held).commit(task, broadcast, step.verdicts)

    def losses(
        self, held: Held, task: EvaluationTask, broadcast: BroadcastBytes
    ) -> dict[int, float]:
        """Training losses of the models that some clients would receive now."""
        return self._worker(held).losses(task, broadcast)

    def evaluate(
        self,
        held: Held,
        task: EvaluationTask,
        broadcast: BroadcastBytes,
        global_model: ModelVector | None,
    ) -> tuple[tuple[ClientScore, ...], Score | None]:
        """Evaluate panel members, and the global model if it is given."""
        return self._worker(held).evaluate(replace(task, global_model=global_model), broadcast)


@ray.remote(concurrency_groups={"beside": 1})  # type: ignore[call-overload]
class AggregatorActor:
    """The process that owns the global model and combines masked updates; see `Aggregator`."""

    def __init__(
        self,
        experiment: Experiment,
        spec: SampleSpec,
        paths: Sequence[str],
    ) -> None:
        extend_path(paths)
        self._aggregator = Aggregator(experiment, spec)

    def broadcast(
        self, round_: int, clients: Sequence[int], known: Collection[int] = ()
    ) -> BroadcastBytes:
        """The round's broadcast."""
        return self._aggregator.broadcast(round_, clients, known)

    def sizes(self, broadcast: BroadcastBytes, members: Sequence[PanelMember]) -> dict[int, int]:
        """Bytes of a broadcast that each of some clients receives."""
        return {member.client: broadcast.size(member) for member in members}

    def facts(self) -> str:
        """The fingerprint of this process."""
        return self._aggregator.facts()

    def global_model(self) -> ModelVector | None:
        """The one model of the whole federation, if there is one."""
        return self._aggregator.global_model()

    def step(
        self,
        round_: int,
        expected: int,
        late: frozenset[int],
        *groups: GroupSums | GroupPayloads,
    ) -> StepReport:
        """Combine the groups of a round."""
        return self._aggregator.step(round_, expected, groups, late)

    def spans(self) -> tuple[Span, ...]:
        """What was done since the last call."""
        return self._aggregator.spans.take()

    def arrays(self) -> Arrays:
        """The server's arrays."""
        return self._aggregator.arrays()

    @ray.method(concurrency_group="beside")
    def snapshot(self) -> tuple[int, Arrays]:
        """The round to come, and the server's arrays before it, while groups are waited for."""
        return self._aggregator.snapshot()

    def restore(self, server: Arrays, round_: int) -> None:
        """Go back to before a round."""
        self._aggregator.restore(server, round_)
