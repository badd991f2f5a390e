"""What a person sees of a search: a line when a trial ends; and the book that is told of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.text import Text

from tune.book import ENDED, FAILED, Book, Entry, trial_id
from tune.objectives import ROUNDS


class Progress(Callback):
    """Listens to Ray Tune.

    Args:
        book: of the search.
        numbers: of the trials that the scheduler itself names, in its order.
        trials: how many there are to be.

    Attributes:
        ended: how many have ended or failed in this process.
    """

    def __init__(self, book: Book, numbers: Sequence[int], trials: int) -> None:
        self._book = book
        self._numbers = numbers
        self._trials = trials
        self.ended = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended: after its last round, or because the scheduler stopped it."""
        self._end(trial, ENDED, None)
        told = trial.last_result
        rounds, sent = told.get(ROUNDS, 0), told.get("bytes", 0)
        accuracy = told.get("accuracy", math.nan)
        shown = "-" if math.isnan(accuracy) else f"{accuracy:.4f}"
        self._line(trial, f"{rounds} rounds, validation accuracy {shown}, {sent / 1e6:.3f} MB")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
        error = lines[-1] if lines else "no reason is known"
        self._end(trial, FAILED, error)
        self._line(trial, f"failed: {error}")

    def _end(self, trial: Any, status: str, error: str | None) -> None:
        name = self._name(trial)
        booked = self._book.entry(name)
        if booked is not None:
            self._book.write(Entry(name, booked.point, status, error))
        self.ended += 1

    def _name(self, trial: Any) -> str:
        """The trial's id in the results."""
        point = trial.config.get("point", {})
        if "trial" in point:
            return str(point["trial"])
        return trial_id(self._numbers[int(trial.trial_id.rpartition("_")[2])])

    def _line(self, trial: Any, text: str) -> None:
        counted = f"({self.ended} of {self._trials})"
        Console().print(Text(f"{self._name(trial)} {counted} {text}"), soft_wrap=True)
