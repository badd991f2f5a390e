"""Takes checkpoints of a run, and finds the one to go on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from spatl_ray.config import Experiment
from spatl_ray.engine.backend import Backend
from spatl_ray.engine.checkpoint import Checkpoint, Checkpoints
from spatl_ray.engine.checkpoint_mark import mark_of
from spatl_ray.engine.folders import checkpoint_folder
from spatl_ray.engine.messages import ClientReport
from spatl_ray.errors import SpatlError, StateError
from spatl_ray.parameters import Arrays


def checkpoints_of(experiment: Experiment) -> Checkpoints:
    """The checkpoints of an experiment's run.

    Raises:
        StateError: Arrow does not know the place.
    """
    place, keep = checkpoint_folder(experiment), experiment.checkpoints.keep
    return Checkpoints(place, keep, mark_of(experiment))


class Keeper:
    """Decides when a checkpoint is due, and takes it.

    It is whole on the disk in this order: client states, rows, the file itself. Until then the one before
    it is what a run goes on from, and what that needs of client states is kept.

    Args:
        experiment: how often, and how many stay.
        backend: holds the server's arrays and clients' states.
        flush: writes the rows so far.
        files: of the checkpoints.

    Attributes:
        kept: rounds of the checkpoints that can be restored.
    """

    def __init__(
        self,
        experiment: Experiment,
        backend: Backend,
        flush: Callable[[], object],
        files: Checkpoints,
    ) -> None:
        self._options = experiment.checkpoints
        self.files = files
        self._rounds = experiment.rounds
        self._backend = backend
        self._flush = flush
        self._taken = time.monotonic()
        self._changed: set[int] = set()
        self._driver: tuple[int, Arrays] | None = None
        self.kept: tuple[int, ...] = ()

    def lost(self) -> None:
        """What the run was at is gone: no checkpoint of it is taken any more."""
        self._driver = None

    def go_to(self, newest: Checkpoint, go: Callable[[Checkpoint], None]) -> list[str]:
        """Have the run go to a checkpoint, or to one before it if clients' states of that are damaged.

        Those after it are removed: what clients' states of them were there goes on from here.

        Args:
            newest: the checkpoint.
            go: goes to one.

        Returns:
            What is wrong with those that were passed over.

        Raises:
            StateError: the run cannot go to any; it is the newest one's.
        """
        faults: dict[int, StateError] = {}
        for round_ in [newest.round, *self._before(newest.round)]:
            try:
                go(newest if round_ == newest.round else self.files.load(round_))
            except StateError as fault:
                faults[round_] = fault
                continue
            for later in set(self.files.rounds()) - {round_, *self._before(round_)}:
                self.files.remove(later)
            return [f"of round {each}: {fault}" for each, fault in faults.items()]
        raise faults[newest.round]

    def _before(self, round_: int) -> list[int]:
        """The rounds of checkpoints before one, the newest first."""
        return [each for each in reversed(self.files.rounds()) if each < round_]

    def went_to(self, checkpoint: Checkpoint) -> None:
        """The run is where it was at a checkpoint."""
        self._changed.clear()
        self.kept = tuple(round_ for round_ in self.files.rounds() if round_ <= checkpoint.round)

    def ended(
        self, round_: int, reports: Sequence[ClientReport], driver: Callable[[], Arrays]
    ) -> None:
        """A round's reports are there; the next one is not drawn yet.

        Args:
            round_: the round.
            reports: its clients'.
            driver: what the driver remembers of the clients, from now on.
        """
        if self._options.every:
            self._changed.update(report.client for report in reports if report.counts)
            if self._is_turn(round_):
                self._driver = round_, driver()

    def take_if_due(self, round_: int, facts: Callable[[], Mapping[str, Any]]) -> None:
        """After a round's rows: a checkpoint, if one is due.

        Args:
            round_: the round.
            facts: gives what else the driver carries on, asked for when the rows are on the disk.

        Raises:
            StateError: it cannot be written.
            ResultsError: rows cannot be written, or are gone.
        """
        waited = time.monotonic() - self._taken >= self._options.seconds
        if self._is_turn(round_) and waited and round_ + 1 < self._rounds:
            self._take(round_, facts)

    def take_at_end(self, round_: int, facts: Callable[[], Mapping[str, Any]]) -> None:
        """A checkpoint of a run that is interrupted, if the server has not gone on since the round."""
        with suppress(SpatlError):  # The one before it is there.
            if self._driver is not None and self._driver[0] == round_:
                self._take(round_, facts)

    def _take(self, round_: int, facts: Callable[[], Mapping[str, Any]]) -> None:
        """A checkpoint after a round, the last one that ended."""
        if self._driver is None or self._driver[0] != round_:
            return
        now, server = self._backend.snapshot()
        if now != round_ + 1:
            return
        self._backend.sync(np.array(sorted(self._changed), dtype=np.int64))
        self._flush()
        self.kept = tuple(self.files.save(Checkpoint(round_, server, self._driver[1], facts())))
        self._backend.forget_before(self.kept[0])
        self._changed.clear()
        self._taken = time.monotonic()

    def tidy_up(self) -> None:
        """The run has finished: nothing will go on from here."""
        with suppress(SpatlError, OSError):
            self.files.clear()
            self._backend.forget_before(self._rounds)

    def _is_turn(self, round_: int) -> bool:
        return self._options.every > 0 and (round_ + 1) % self._options.every == 0
