"""Where the next trial is: Optuna by way of Ray Tune, and the book of what was begun before."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.tune.search import Searcher

from spatl_ray import seeding
from spatl_ray.errors import ConfigError, EngineError
from tune.book import FAILED, Book, Entry, number_of, trial_id
from tune.objectives import FIGURES
from tune.space import Dimension, Point
from tune.study import Study

STREAM = "search"


class BookedSearcher(Searcher):
    """Suggests what another searcher does, first what was begun before, and books each trial.

    Args:
        inner: was told to suggest the points of `numbers` first, in their order.
        book: of the search.
        numbers: of the trials that come first: those that were begun before, or all of a grid. Later ones
            have the numbers after the last.
        retries: whether trials that failed are run again.
    """

    def __init__(self, inner: Searcher, book: Book, numbers: Sequence[int], retries: bool) -> None:
        super().__init__(metric=inner.metric, mode=inner.mode)
        self.searcher = inner
        self._book = book
        self._entries = {number_of(entry.trial): entry for entry in book.entries()}
        self._retries = retries
        self._numbers = itertools.chain(numbers, itertools.count(max(numbers, default=-1) + 1))
        self._next = next(self._numbers)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Nothing is left open."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next point; None for now, if the searcher waits."""
        self._pass_failed()
        point = self.searcher.suggest(trial_id)
        if not isinstance(point, Mapping):
            return point
        return {"point": {**point, "trial": self._booked(dict(point)).trial}}

    def _pass_failed(self) -> None:
        """Tell the inner searcher of the next trials that failed, and are not to be run again."""
        while not self._retries:
            entry = self._entries.get(self._next)
            if entry is None or entry.status != FAILED:
                return
            self._booked(dict(self.searcher.suggest(entry.trial) or {}))
            self.searcher.on_trial_complete(entry.trial, error=True)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell how far a trial is."""
        self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell what a trial reached."""
        self.searcher.on_trial_complete(trial_id, result=result, error=error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the book holds it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the book holds it."""

    def get_state(self) -> dict[str, Any]:
        """Nothing: the book holds it."""
        return {}

    def _booked(self, point: Point) -> Entry:
        """The trial of a point."""
        number, self._next = self._next, next(self._numbers)
        entry = self._entries.get(number)
        if entry is None:
            entry = Entry(trial_id(number), point)
            self._book.write(entry)
        if entry.point != point:
            raise EngineError(
                f"trial {entry.trial} must be suggested again at {entry.point}, got {point}"
            )
        return entry


def booked_searcher(
    study: Study, book: Book, entries: Sequence[Entry], retries: bool
) -> BookedSearcher:
    """The searcher of a study.

    Raises:
        ConfigError: Optuna is not installed.
    """
    # Here, not at the top: PBT needs none.
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError as error:
        raise ConfigError(
            f"--search {study.search} needs Optuna, got none: pip install 'spatl_ray[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    numbers = [number_of(entry.trial) for entry in entries]
    points = [dict(entry.point) for entry in entries]
    if study.search == "grid":
        points = [dict(point) for point in study.ranges.grid()]
        numbers = list(range(len(points)))
    # Of another stream for each beginning, or it would suggest the same points again.
    seed = int(seeding.generator(study.seed, STREAM, len(entries)).integers(2**31))
    samplers = optuna.samplers
    sampler = (samplers.TPESampler if study.search == "tpe" else samplers.RandomSampler)(seed=seed)
    modes = [FIGURES[name].mode for name in study.objectives]
    single = len(modes) == 1
    inner = OptunaSearch(
        {each.key: _distribution(each) for each in study.ranges.dimensions},
        metric=study.objectives[0] if single else list(study.objectives),
        mode=modes[0] if single else modes,
        points_to_evaluate=points,
        sampler=sampler,
    )
    return BookedSearcher(inner, book, numbers, retries)


def drawn_points(study: Study, entries: Sequence[Entry], trials: int) -> list[Entry]:
    """The trials of a search whose scheduler takes no searcher: those that were begun, and drawn ones."""
    known = {number_of(entry.trial): entry for entry in entries}
    return [
        known.get(number) or Entry(trial_id(number), study.ranges.sample(_generator(study, number)))
        for number in range(trials)
    ]


def _generator(study: Study, number: int) -> np.random.Generator:
    return seeding.generator(study.seed, STREAM, number)


def _distribution(dimension: Dimension) -> Any:
    """A range, as Optuna has it."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.labels())
    low, high = dimension.values
    kind = IntDistribution if dimension.kind in ("int", "logint") else FloatDistribution
    return kind(low, high, log=dimension.kind in ("loguniform", "logint"))
