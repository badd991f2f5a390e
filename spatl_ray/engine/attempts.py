"""Which client a worker's process was at when it died, so that one client cannot take a run along.

A process that follows one that died notes each client before it trains it, in a file on its node. What the
file still names when the next process comes is what the last one died of. Why it died is told as far as the
kernel, or who started the process, knows.

Who frees memory may end several processes of a node at once, of which one is to blame. So in the round in
which they died, those that follow train one client at a time on a node: the others are then at none.
"""

from __future__ import annotations

import faulthandler
import fcntl
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from spatl_ray.config import Engine
from spatl_ray.places import write_whole

OUT_OF_MEMORY = "the kernel killed a process of this machine for want of memory then"

TURN = "turn"
"""The file that is locked by whose turn it is."""

STDERR = 2
"""Also where Ray has redirected it."""


class ClientTimeoutError(Exception):
    """A client took longer than `engine.client_timeout`."""


class ClientDiedError(Exception):
    """A client took its process along."""


def tries(engine: Engine) -> int:
    """How often a client that fails is tried in a round; one death more is what it takes to be given up."""
    return 2 if engine.on_client_failure == "retry" else 1


Ended = Callable[[int], str]
"""Says how the process with a pid ended, in a few words, or nothing."""


def _unknown(pid: int) -> str:
    return ""


def oom_kills() -> int:
    """How many processes the kernel of this machine has killed for want of memory; 0 if it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


class Attempts:
    """Deaths of a worker's processes by round and client.

    Args:
        file: of the worker, on its node; None for a worker that cannot be replaced.
        follows: whether this process follows one that died.
        ended: says how an earlier process ended.

    Attributes:
        careful: whether clients are noted, one by one.
        replaceable: whether another process follows if this one dies.
    """

    def __init__(
        self, file: Path | None = None, follows: bool = False, ended: Ended = _unknown
    ) -> None:
        self._file = file
        self.replaceable = file is not None
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._causes: dict[tuple[int, int], str] = {}
        self._suspect: int | None = None
        if file is not None and file.exists():
            self._take_over(json.loads(file.read_text()), ended)
        self.careful = file is not None and (follows or bool(self._deaths))

    def _take_over(self, noted: Mapping[str, Any], ended: Ended) -> None:
        """What the last process noted, and what it died of."""
        for round_, client, count, cause in noted["deaths"]:
            self._deaths[round_, client] = count
            self._causes[round_, client] = cause
        if noted["at"] is not None:
            at = tuple(noted["at"])
            self._deaths[at] += 1
            killed = oom_kills() > noted["oom_kills"]
            self._causes[at] = OUT_OF_MEMORY if killed else ended(noted["pid"])

    def deaths(self, round_: int, client: int) -> int:
        """How many processes died while they trained a client in a round."""
        return self._deaths[round_, client]

    def cause(self, round_: int, client: int) -> str:
        """Why the last of them died, in a few words; nothing if that is not known."""
        return self._causes.get((round_, client), "")

    @contextmanager
    def noted(self, round_: int, client: int) -> Iterator[None]:
        """While entered, a death is the client's."""
        if self._file is None or not self.careful:
            yield
            return
        if self._suspect is None:
            self._suspect = round_  # The first one after a death is the one in which it was.
        with self._turn() if round_ == self._suspect else nullcontext():
            self._write((round_, client))
            try:
                yield
            finally:
                self._write(None)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Alone on this node among those that take turns; who dies gives its turn away."""
        assert self._file is not None
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with (self._file.parent / TURN).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self, at: tuple[int, int] | None) -> None:
        assert self._file is not None
        deaths = [[*key, count, self.cause(*key)] for key, count in self._deaths.items()]
        noted = {"at": at, "pid": os.getpid(), "oom_kills": oom_kills(), "deaths": deaths}
        write_whole(self._file, json.dumps(noted).encode())


def in_main_thread() -> bool:
    """Whether what runs here can be stopped."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def limited(seconds: float | None, kill: bool) -> Iterator[None]:
    """Stop what takes longer; only the main thread can be stopped, elsewhere there is no limit.

    Args:
        seconds: after which ClientTimeoutError is raised in the main thread; None for no limit.
        kill: end the process after twice as long, if what runs does not even let that be raised.

    Raises:
        ClientTimeoutError: it took too long.
    """
    if seconds is None or not in_main_thread():
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
