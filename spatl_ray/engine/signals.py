"""Signals that end a run, held back until its results are whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

STOPPING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
"""Signals whose handlers may raise, as Ctrl-C does; Windows has no SIGHUP."""


class HeldSignals:
    """While entered, what may raise as Ctrl-C does waits, but for `let_in`: every run gets its end."""

    def __init__(self) -> None:
        self._before: dict[int, Callable[..., object]] = {}
        self._open, self._waiting = False, set[int]()

    def __enter__(self) -> HeldSignals:
        is_main = threading.current_thread() is threading.main_thread()
        for number in STOPPING if is_main else []:  # other threads may not set handlers
            handler = signal.getsignal(number)
            if callable(handler):  # else it is ignored, or ends the process at once
                self._before[number] = handler
                signal.signal(number, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        for number in reversed(self._before):  # Ctrl-C last: it may raise before the next one
            if signal.getsignal(number) == self._came:  # else who listens has set another
                signal.signal(number, self._before[number])
        self._hand_over()

    @contextmanager
    def let_in(self) -> Iterator[None]:
        """Signals come through, until one raises."""
        self._open = True
        try:
            self._hand_over()
            yield
        finally:
            self._open = False

    def _came(self, number: int, frame: object) -> None:
        if not self._open:
            self._waiting.add(number)
            return
        try:
            self._before[number](number, frame)
        except BaseException:
            self._open = False
            raise

    def _hand_over(self) -> None:
        """Raise once more what waits, each of them even if another one raises an exception."""
        with ExitStack() as signals:
            while self._waiting:
                signals.callback(signal.raise_signal, self._waiting.pop())
