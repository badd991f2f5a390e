"""Which process started which, as Linux tells it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def parent(process: int) -> int:
    """The process that started another one."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def children(process: int) -> list[int]:
    """Those that a process started and that still run."""
    found = []
    for other in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended since
            if parent(int(other.name)) == process:
                found.append(int(other.name))
    return found
