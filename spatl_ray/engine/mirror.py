"""Client states on two nodes' own disks each, for clusters that share no folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from spatl_ray.engine.messages import NEVER, EvaluationTask, GroupTask, Member, PanelMember
from spatl_ray.errors import ConfigError

UNKNOWN = -1
"""Stands for the node of a state that was never written."""


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

    Raises:
        ConfigError: all workers are on one node.

    Attributes:
        kept: rounds of the checkpoints that can be restored.
    """

    def __init__(
        self, workers: Sequence[Any], nodes: Sequence[object], held: Sequence[Any], clients: int
    ) -> None:
        names = sorted(set(map(str, nodes)))
        if len(names) < 2:
            raise ConfigError(
                "engine.state_mirror must be false where all clients are trained on one node: there is no "
                "second one to keep their states"
            )
        self._workers = workers
        self._node = [names.index(str(name)) for name in nodes]
        self._on: dict[int, list[Any]] = defaultdict(list)
        for worker, node in zip(workers, self._node, strict=True):
            self._on[node].append(worker)
        self._held = held
        self.kept: tuple[int, ...] = ()
        self._homes = np.full((clients, 2), UNKNOWN, dtype=np.int64)

    def bring(self, tasks: Sequence[tuple[int, GroupTask | EvaluationTask]]) -> None:
        """Before tasks: the states that a task's node lacks, from a node that has them.

        Args:
            tasks: each with the index of its worker.
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
        for worker, records in pending:
            worker.keep.remote(self._held, self.kept, *records)

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
