"""Which client a worker's process was at when it died, so that one client cannot take a run along.

A process that follows one that died notes each client before it trains it, in a file on its node. What the
file still names when the next process comes is what the last one died of.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spatl_ray.places import write_whole

STDERR = 2
"""Also where Ray has redirected it."""


class ClientTimeoutError(Exception):
    """A client took longer than `engine.client_timeout`."""


class ClientDiedError(Exception):
    """A client took its process along."""


class Attempts:
    """Deaths of a worker's processes by round and client.

    Args:
        file: of the worker, on its node; None for a worker that cannot be replaced.
        follows: whether this process follows one that died.

    Attributes:
        careful: whether clients are noted, one by one.
        replaceable: whether another process follows if this one dies.
    """

    def __init__(self, file: Path | None = None, follows: bool = False) -> None:
        self._file = file
        self.replaceable = file is not None
        self._deaths: Counter[tuple[int, int]] = Counter()
        if file is not None and file.exists():
            noted = json.loads(file.read_text())
            self._deaths.update({(r, c): count for r, c, count in noted["deaths"]})
            if noted["at"] is not None:
                self._deaths[tuple(noted["at"])] += 1
        self.careful = file is not None and (follows or bool(self._deaths))

    def deaths(self, round_: int, client: int) -> int:
        """How many processes died while they trained a client in a round."""
        return self._deaths[round_, client]

    @contextmanager
    def noted(self, round_: int, client: int) -> Iterator[None]:
        """While entered, a death is the client's."""
        if self._file is None or not self.careful:
            yield
            return
        self._write((round_, client))
        try:
            yield
        finally:
            self._write(None)

    def _write(self, at: tuple[int, int] | None) -> None:
        assert self._file is not None
        deaths = [[r, c, count] for (r, c), count in self._deaths.items()]
        write_whole(self._file, json.dumps({"at": at, "deaths": deaths}).encode())


@contextmanager
def limited(seconds: float | None, kill: bool) -> Iterator[None]:
    """Stop what takes longer; only the main thread can be stopped, elsewhere there is no limit.

    Args:
        seconds: after which ClientTimeoutError is raised in the main thread; None for no limit.
        kill: end the process after twice as long, if what runs does not even let that be raised.

    Raises:
        ClientTimeoutError: it took too long.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def too_long(*_: object) -> None:
        raise ClientTimeoutError(f"not done after {seconds:g} s (engine.client_timeout)")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if kill:
        faulthandler.dump_traceback_later(2 * seconds, exit=True, file=STDERR)
    try:
        yield
    finally:
        if kill:
            faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
