"""Callbacks that have a name: what they raise names them, and rows they change are theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from spatl_ray import plugins
from spatl_ray.callbacks import Callback, Row
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError


class Named(Callback):
    """Tells a logger of results.loggers everything; each method raises a PluginError if it does.

    Args:
        inner: the logger.
        name: of it in results.loggers, for errors.
    """

    def __init__(self, inner: Callback, name: str) -> None:
        self.inner = inner
        self._name = name

    def preparing(self, step: str) -> None:
        with self._blamed("preparing"):
            self.inner.preparing(step)

    def run_started(self, experiment: Experiment, run_id: str) -> None:
        with self._blamed("run_started"):
            self.inner.run_started(experiment, run_id)

    def round_started(self, round_: int) -> None:
        with self._blamed("round_started"):
            self.inner.round_started(round_)

    def clients_done(self, round_: int, done: int, cohort: int) -> None:
        with self._blamed("clients_done"):
            self.inner.clients_done(round_, done, cohort)

    def event(self, row: Row) -> None:
        with self._blamed("event"):
            self.inner.event(dict(row))

    def clients_ended(self, round_: int, rows: Sequence[Row]) -> None:
        with self._blamed("clients_ended"):
            self.inner.clients_ended(round_, [dict(row) for row in rows])

    def round_ended(self, row: Row) -> None:
        with self._blamed("round_ended"):
            self.inner.round_ended(dict(row))

    def run_ended(self, status: str) -> None:
        with self._blamed("run_ended"):
            self.inner.run_ended(status)

    def _blamed(self, method: str) -> AbstractContextManager[None]:
        return plugins.blamed("results.loggers", self._name, f"in {method}")


class Given(Named):
    """Tells a callback that was handed to `run` everything; what it raises gets a note with its name.

    The exception stays as it is: the caller knows the callback, and may use it to stop a run.

    Raises:
        ConfigError: on construction, if `inner` is no Callback, such as a class of them.
    """

    def __init__(self, inner: Callback) -> None:
        if not isinstance(inner, Callback):
            raise ConfigError(f"callbacks must be instances of spatl_ray.Callback, got {inner!r}")
        super().__init__(inner, f"{type(inner).__module__}:{type(inner).__qualname__}")

    @contextmanager
    def _blamed(self, method: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            place = plugins.raised_at(error)
            error.add_note(f"callback {self._name!r} raised in {method}, at {place}")
            raise
