"""A run that waits after each evaluation until it is told to go on.

The run goes on in a thread of its own: it is this package's one loop over rounds, which a callback holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

from spatl_ray.callbacks import Callback, Row
from spatl_ray.config import Experiment
from spatl_ray.errors import EngineError

GO, STOP = "go", "stop"
ENDED = "ended"


class _Gate(Callback):
    """Holds the run after each evaluated round, where its checkpoint, if one is due, is on the disk."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._waits = False
        self.told: Queue[Any] = Queue()
        self.commands: Queue[str] = Queue()
        self.is_parked = threading.Event()

    def round_ended(self, row: Row) -> None:
        """Tell an evaluated round."""
        ended = int(str(row["round"])) + 1
        if ended % self._experiment.evaluation.every == 0 or ended == self._experiment.rounds:
            self.told.put(row)
            self._waits = True

    def round_started(self, round_: int) -> None:
        """Wait after such a round."""
        if not self._waits:
            return
        self._waits = False
        self.is_parked.set()
        command = self.commands.get()
        self.is_parked.clear()
        if command == STOP:
            raise KeyboardInterrupt


class SteppedRun:
    """A run, one evaluation at a time.

    Args:
        experiment: its config.
        start: runs it to its end, telling a callback.
    """

    def __init__(self, experiment: Experiment, start: Callable[[Callback], object]) -> None:
        self._gate = _Gate(experiment)
        self._start = start
        self._rounds = experiment.rounds
        self._problem: BaseException | None = None
        self._thread: threading.Thread | None = None

    def next(self) -> Row:
        """The next evaluated row of table `rounds`; after the last one, the run has ended.

        Raises:
            Exception: what the run raised.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="run", daemon=True)
            self._thread.start()
        else:
            self._gate.commands.put(GO)
        row = self._gate.told.get()
        if row == ENDED:
            raise self._problem or EngineError("the run ended before its last round")
        if row["round"] + 1 == self._rounds:
            self._join()
        return dict(row)

    def park(self) -> None:
        """Wait until the run stands still after the last row, its checkpoint on the disk.

        Raises:
            EngineError: the run has not begun, or has ended.
        """
        while self._thread is not None and self._thread.is_alive():
            if self._gate.is_parked.wait(0.1):
                return
        raise self._problem or EngineError("a run must have begun, and not ended, to be saved")

    def stop(self) -> None:
        """End the run as Ctrl-C does; its results are whole then."""
        if self._thread is not None and self._thread.is_alive():
            self._gate.commands.put(STOP)
            self._thread.join()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        try:
            self._start(self._gate)
        except BaseException as problem:
            self._problem = problem
        finally:
            self._gate.told.put(ENDED)
