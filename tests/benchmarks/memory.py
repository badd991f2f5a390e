"""Memory of this process and all that it started, sampled in the background."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType

import numpy as np

EVERY = 0.5
"""Seconds between two samples."""

KIND = {"raylet": "object store and raylet", "gcs_server": "Ray's services"}


class Memory:
    """Samples proportional set sizes while a block runs; shared pages count once.

    Attributes:
        seconds: when each sample was taken.
        samples: bytes of each kind of process then.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.samples: list[dict[str, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak(self) -> float:
        """The largest sum over all processes, bytes."""
        return float(max(sum(sample.values()) for sample in self.samples))

    def slopes(self) -> dict[str, float]:
        """Bytes a second by kind of process, over the second half of the samples."""
        half = len(self.seconds) // 2
        kinds = self.samples[-2]
        return {
            kind: float(
                np.polyfit(self.seconds[half:], [s.get(kind, 0) for s in self.samples[half:]], 1)[0]
            )
            for kind in kinds
        }

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self.seconds.append(time.perf_counter())
            self.samples.append(_sizes())


def _sizes() -> dict[str, int]:
    """Bytes by kind of process."""
    found: dict[str, int] = defaultdict(int)
    for pid in _family():
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        size = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        found[_kind(pid, name)] += 1024 * size
    return dict(found)


def _kind(pid: int, name: str) -> str:
    if pid == os.getpid():
        return "driver"
    if name.startswith("ray::"):
        return name.removeprefix("ray::").partition(".")[0]
    return KIND.get(name, "Ray's services")


def _family() -> list[int]:
    """This process and its descendants."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            children[int(stat.rpartition(")")[2].split()[1])].append(int(entry.name))
    found, waiting = [], [os.getpid()]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children[pid]
    return found
