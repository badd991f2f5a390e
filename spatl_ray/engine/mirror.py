"""Client states on two nodes' own disks each, for clusters that share no folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from spatl_ray.arrays import Bits, Integers
from spatl_ray.engine.messages import NEVER, EvaluationTask, GroupTask, Member, PanelMember
from spatl_ray.errors import ConfigError, StateError

UNKNOWN = -1
"""Stands for the node of a state that was never written."""

AT_ONCE = 256
"""States that are copied again with one message."""


class Mirror:
    """Knows which two nodes hold each client's state, and moves states between nodes.

    A node's states are mirrored by the next node, in the order of their names. An actor does what it
    is asked in the order in which it is asked: each move is asked for after what it needs, and before
    what needs it. Whoever holds a state of two rounds ago holds no later one, so that a record that
    is moved always goes beside the last one, or over an older one.

    Args:
        workers: the ClientActors.
        nodes: the name of each one's node.
        held: what their methods take first.
        clients: of the federation.
        alone: whether one node will do, the last one of a run that had more: it has no mirror then.

    Raises:
        ConfigError: all workers are on one node.

    Attributes:
        kept: rounds of the checkpoints that can be restored.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        nodes: Sequence[object],
        held: Any,
        clients: int,
        alone: bool = False,
    ) -> None:
        names = sorted(set(map(str, nodes)))
        if len(names) < 2 and not alone:
            raise ConfigError(
                "engine.state_mirror must be false where all clients are trained on one node: there is no "
                "second one to keep their states"
            )
        self._workers = workers
        self._node = [names.index(str(name)) for name in nodes]
        self._on: dict[int, list[Any]] = defaultdict(list)
        for worker, node in zip(workers, self._node, strict=True):
            self._on[node].append(worker)
        self.firsts = [self._on[node][0] for node in range(len(names))]
        self._held = held
        self.kept: tuple[int, ...] = ()
        self._homes = np.full((clients, 2), UNKNOWN, dtype=np.int64)

    def bring(self, tasks: Sequence[tuple[int, GroupTask | EvaluationTask]]) -> list[Any]:
        """Before tasks: the states that a task's node lacks, from a node that has them.

        Args:
            tasks: each with the index of its worker.

        Returns:
            References that tell whether they came.
        """
        pending = []
        for index, task in tasks:
            lacking = self._lacking(index, task.members)
            records = [
                self._one_of(node, index).records.remote(self._held, clients)
                for node, clients in lacking.items()
            ]
            if records:
                pending.append((self._workers[index], records))
        # After all of them were asked for: two nodes may each lack what the other one has.
        return [worker.keep.remote(self._held, self.kept, *records) for worker, records in pending]

    def find(self, missing: Sequence[Collection[int]], last: Integers) -> Iterator[list[Any]]:
        """After a loss: where each state is, and copies of those that are on one node only.

        Args:
            missing: for each node clients whose last state it has not.
            last: the round of each client's state, -1 for the initial one, shape (clients,).

        Yields:
            References to some copies; all are there before the next ones are asked for.

        Raises:
            StateError: a state is on no node.
        """
        has = np.ones((len(missing), len(last)), dtype=np.bool_)
        for node, clients in enumerate(missing):
            has[node, list(clients)] = False
        lost = np.flatnonzero((last != NEVER) & ~has.any(axis=0))
        if lost.size:
            client = lost[0]
            raise StateError(
                f"the state of client {client} after round {last[client]} is lost: none of the "
                f"{len(missing)} node(s) has it on its disk"
            )
        return self._found(has, last)

    def _found(self, has: Bits, last: Integers) -> Iterator[list[Any]]:
        """`find`, once every state is somewhere; `has` tells for each node which ones are there."""
        homes = np.argmax(has, axis=0)
        others = has.copy()
        others[homes, np.arange(len(last))] = False
        alone = ~others.any(axis=0)
        mirrors = np.where(alone, (homes + 1) % len(has), np.argmax(others, axis=0))
        self._homes = np.stack([homes, mirrors], axis=1)
        for node in range(len(has) if len(has) > 1 else 0):
            clients = np.flatnonzero(alone & (homes == node) & (last != NEVER)).tolist()
            for start in range(0, len(clients), AT_ONCE):
                wanted = {c: int(last[c]) for c in clients[start : start + AT_ONCE]}
                records = self.firsts[node].records.remote(self._held, wanted)
                mirror = self.firsts[(node + 1) % len(has)]
                # An older checkpoint may need what the copy replaces there: it then has one copy less.
                yield [mirror.keep.remote(self._held, (), records)]

    def copy(self, tasks: Sequence[GroupTask], accepted: Collection[int]) -> list[Any]:
        """After a round: its new states also go to the node that mirrors theirs.

        Args:
            tasks: the round's groups.
            accepted: clients whose states were written.

        Returns:
            A reference a copy: the round counts when all are there.
        """
        copies = []
        for task in tasks:
            new = {m.client: task.round for m in task.members if m.client in accepted}
            if not new:
                continue
            node = self._node[task.group]
            mirror = (node + 1) % len(self._on)
            self._homes[list(new)] = node, mirror
            if mirror == node:
                continue
            records = self._workers[task.group].records.remote(self._held, new)
            copies.append(
                self._one_of(mirror, task.group).keep.remote(self._held, task.kept, records)
            )
        return copies

    def _lacking(
        self, index: int, members: Sequence[Member | PanelMember]
    ) -> dict[int, dict[int, int]]:
        """By node that has them: clients whose states a worker's node lacks, with their last rounds."""
        lacking: dict[int, dict[int, int]] = defaultdict(dict)
        for member in members:
            homes = self._homes[member.client].tolist()
            if member.last != NEVER and self._node[index] not in homes:
                lacking[homes[0]][member.client] = member.last
        return lacking

    def _one_of(self, node: int, index: int) -> Any:
        """A worker of a node; other ones for other indices."""
        workers = self._on[node]
        return workers[index % len(workers)]
