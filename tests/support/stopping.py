"""What stops a run: loggers that do, as a terminal and a cluster, and signals while it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from spatl_ray import Callback
from spatl_ray.callbacks import Row
from spatl_ray.config import Experiment
from spatl_ray.results.writer import ResultsWriter

LAST = 2
"""The round whose end they send the signal at."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def listening() -> Iterator[None]:
    """All signals raise, as Ctrl-C does, even where they were ignored; restored afterwards."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def send_during(monkeypatch: pytest.MonkeyPatch, method: str, *numbers: int) -> None:
    """Send this process signals as a method of the results' writer begins."""
    undisturbed = getattr(ResultsWriter, method)

    def disturbed(*arguments: object) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)
        undisturbed(*arguments)

    monkeypatch.setattr(ResultsWriter, method, disturbed)


class Stopping(Callback):
    """Sends a signal to its own process."""

    signal: signal.Signals

    def __init__(self, experiment: Experiment) -> None:
        pass

    def round_ended(self, row: Row) -> None:
        if row["round"] == LAST:
            os.kill(os.getpid(), self.signal)


class CtrlC(Stopping):
    signal = signal.SIGINT


class Terminate(Stopping):
    signal = signal.SIGTERM


class HangUp(Stopping):
    signal = signal.SIGHUP
