"""Writes to the files of client states, with errors that name the place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spatl_ray.errors import StateError


@contextmanager
def reported(what: str, path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a StateError that names the path."""
    try:
        yield
    except OSError as error:
        raise StateError(f"cannot {what} {path}: {error.strerror or error}") from error


@contextmanager
def opened(path: Path, length: int) -> Iterator[int]:
    """A file to read and write, made with this length if it is not there yet.

    Raises:
        StateError: it cannot be made, or what is done with it meanwhile is refused.
    """
    with reported("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, length)
            yield descriptor
        finally:
            os.close(descriptor)


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of the data: one call may write less, and only the next one says why."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def check_length(descriptor: int, length: int, path: Path, client: int) -> None:
    """Refuse a file that lost its end, or never had it.

    Raises:
        StateError: it is such a file.
    """
    found = os.fstat(descriptor).st_size
    # Another worker may have created the file and not yet given it its length.
    if found not in (0, length):
        raise StateError(
            f"{path}: the file with client {client} must have {length} bytes, got {found}: it is truncated "
            "or of another run"
        )
