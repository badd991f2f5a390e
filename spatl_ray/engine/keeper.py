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
from spatl_ray.errors import SpatlError
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
