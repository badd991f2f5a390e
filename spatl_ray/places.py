"""Files that appear whole or not at all, and places where they can be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from spatl_ray.errors import ConfigError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file; it appears whole or not at all, also if the machine stops.

    Args:
        path: of the file; its folder is made, an existing file is replaced.
        data: its contents.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Have the disk hold what any process wrote to a file, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_place(path: Path, option: str) -> None:
    """Refuse a place where nothing can be made, by trying (permission bits do not tell); nothing stays.

    Args:
        path: of a file or folder that is to be made, with the folders above it.
        option: that named it.

    Raises:
        ConfigError: what is there of the path is no folder, or cannot be written.
    """
    try:
        above = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=above):
            pass
        path.exists()  # A name that is too long is refused here.
    except OSError as error:
        raise ConfigError(
            f"{option} must be a place that can be written, got {str(path)!r}: {error}"
        ) from error
