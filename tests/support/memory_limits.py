"""Cgroups whose processes the kernel kills if they ask for more than they may have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

CGROUPS = Path("/sys/fs/cgroup")
LIMITS = ("memory.max", "memory.limit_in_bytes")
"""The file of the limit, in cgroups of version 2 and 1."""


def _parents() -> Iterator[Path]:
    """This process's cgroups that may count memory."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            yield CGROUPS / controllers / path.lstrip("/")


@contextmanager
def limited_memory(size: int) -> Iterator[Path | None]:
    """A cgroup below this process's own, of so many bytes; None if none can be made here."""
    made: Path | None = None
    for parent in _parents():
        cgroup = parent / f"spatl-{uuid4().hex[:8]}"
        with suppress(OSError):
            cgroup.mkdir()
            limit = next((cgroup / name for name in LIMITS if (cgroup / name).exists()), None)
            if limit is not None:
                limit.write_text(str(size))
                made = cgroup
                break
            cgroup.rmdir()
    try:
        yield made
    finally:
        if made is not None:
            made.rmdir()


def can_limit() -> bool:
    """Whether a cgroup can be made here."""
    if not Path("/proc/self/cgroup").exists():
        return False
    with limited_memory(2**28) as cgroup:
        return cgroup is not None
