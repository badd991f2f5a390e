"""Where a Ray run's client states lie: in a folder that all nodes share, or on two nodes' disks each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from spatl_ray.arrays import Integers
from spatl_ray.engine.messages import EvaluationTask, GroupTask
from spatl_ray.engine.mirror import Mirror
from spatl_ray.errors import ConfigError
from spatl_ray.places import write_whole
from spatl_ray.state.store import forget_undone, sync_states

ASKED_SECONDS = 10.0
"""How long a checkpoint waits for nodes that are busy: until their disks have its states, two memories do."""


class PlacedStates:
    """Moves, saves and takes back client states through the workers that hold them.

    Args:
        workers: the ClientActors.
        nodes: the name of each one's node.
        held: what their methods take first.
        get: waits for what they return, with this package's errors; at most for given seconds.
        folder: of the states.
        mirrored: the number of clients, if each node keeps states of its own; else None.
        alone: whether one node will do for these, see `Mirror`.

    Raises:
        ConfigError: a node does not see the folder, or there is none to mirror on.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        nodes: Sequence[object],
        held: Any,
        get: Callable[..., Any],
        folder: Path,
        mirrored: int | None,
        alone: bool = False,
    ) -> None:
        self._held, self._get, self._folder = held, get, folder
        firsts = {node: worker for worker, node in zip(workers, nodes, strict=True)}
        self._firsts = list(firsts.values())
        self._mirror = None
        if mirrored is not None:
            self._mirror = Mirror(workers, nodes, held, mirrored, alone)
            self._firsts = self._mirror.firsts
        elif len(firsts) > 1:
            self._check_shared(firsts)

    def _check_shared(self, firsts: dict[object, Any]) -> None:
        """A client's next round may be on any node: its state must be there."""
        # Beside the run's own folder, which a run that replaces another removes.
        mark = self._folder.parent / f".{self._folder.name}.{uuid4().hex}"
        write_whole(mark, b"")
        try:
            seen = self._get([worker.sees.remote(mark) for worker in firsts.values()])
        finally:
            mark.unlink()
        blind = [str(node) for node, sees in zip(firsts, seen, strict=True) if not sees]
        if blind:
            raise ConfigError(
                "engine.state_folder must be a folder that all nodes share, or clients must be trained on "
                f"one node; got {str(self._folder.parent)!r}, which is not there on node(s) "
                f"{', '.join(sorted(blind))}"
            )

    def bring(
        self, tasks: Sequence[tuple[int, GroupTask | EvaluationTask]], kept: Sequence[int] = ()
    ) -> list[Any]:
        """Before tasks, each with its worker's index: have it find its clients' states on its node.

        Args:
            tasks: the tasks.
            kept: rounds of the checkpoints that can be restored; nothing keeps the last ones.

        Returns:
            References that fail where a task's states could not come.
        """
        if self._mirror is None:
            return []
        self._mirror.kept = tuple(kept) or self._mirror.kept
        return self._mirror.bring(tasks)

    def copy(self, tasks: Sequence[GroupTask], accepted: Collection[int]) -> list[Any]:
        """After a round: references to copies of its new states, with which it counts."""
        return [] if self._mirror is None else self._mirror.copy(tasks, accepted)

    def forget(self) -> None:
        """Remove the states of an earlier run."""
        for worker in self._firsts[:1] if self._mirror is None else self._firsts:
            self._get(worker.forget.remote(self._held))  # One by one: some may share a disk.

    def restore(self, last: Integers, folders: Collection[str]) -> None:
        """Go back to a checkpoint; mirrored states that are left on one node go to a second one.

        Args:
            last: the round of each client's state, -1 for the initial one, shape (clients,).
            folders: those of nodes that held its states.

        Raises:
            StateError: a state is lost.
        """
        if self._mirror is None:
            self._get(self._firsts[0].restore.remote(self._held, last))
            return
        known = frozenset(folders)
        missing = self._get([w.take_back.remote(self._held, last, known) for w in self._firsts])
        for copies in self._mirror.find(missing, last):
            self._get(copies)

    def sync(self, clients: Integers) -> None:
        """Have the disks hold the states of some clients, on both of their nodes if they are mirrored."""
        if self._mirror is None:
            sync_states(self._folder, clients)
            return
        self._asked([worker.sync.remote(self._held, clients) for worker in self._firsts])

    def forget_before(self, oldest: int) -> None:
        """No checkpoint before this round is restored any more."""
        if self._mirror is None:
            forget_undone(self._folder, oldest)
            return
        self._asked([worker.forget_before.remote(self._held, oldest) for worker in self._firsts])

    def _asked(self, references: Sequence[Any]) -> None:
        """What nodes that are busy do as soon as they are not."""
        with suppress(TimeoutError):
            self._get(references, ASKED_SECONDS)
