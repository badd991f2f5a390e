"""One process at a time goes on with a run."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from spatl_ray.addresses import is_address, working_folder
from spatl_ray.engine.bookkeeping import bookkeeping
from spatl_ray.errors import ResultsError

if sys.platform != "win32":
    import fcntl

Start = TypeVar("Start", bound=Callable[..., Any])


@contextmanager
def alone(results: Path, run_id: str) -> Iterator[None]:
    """While entered, no other process works on the run; the kernel lets go when this one dies.

    Where files cannot be locked, or not be made, nobody is kept out. Of a run that was refused before it had
    a row, nothing stays.

    Args:
        results: the results folder.
        run_id: of the run.

    Raises:
        ResultsError: another process does.
    """
    was_there = results.exists()
    descriptor = _locked(bookkeeping(results, run_id) / "lock", run_id)
    try:
        yield
    finally:
        if not (results / "runs" / f"run_id={run_id}").exists():
            _remove(results, run_id, was_there)
        if descriptor is not None:
            os.close(descriptor)


def _remove(results: Path, run_id: str, was_there: bool) -> None:
    """What is written beside the tables of a run without any."""
    place = bookkeeping(results, run_id)
    shutil.rmtree(place, ignore_errors=True)
    with suppress(OSError):  # where there is more in them
        place.parent.rmdir()
        if not was_there:
            results.rmdir()


def alone_with_run(start: Start) -> Start:
    """Of a function of a results folder and a run id: one that has the run for itself meanwhile."""

    @wraps(start)
    def locked(folder: str | Path, run_id: str, **options: Any) -> Any:
        here = working_folder(folder)
        if not is_address(folder) and not (here / "runs" / f"run_id={run_id}").exists():
            return start(folder, run_id, **options)  # says that there is no such run
        with alone(here, run_id):
            return start(folder, run_id, **options)

    return cast(Start, locked)


def _locked(path: Path, run_id: str) -> int | None:
    """The lock's descriptor, None without one."""
    if sys.platform == "win32":
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:  # whoever writes results says so
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        os.close(descriptor)
        raise ResultsError(
            f"run {run_id!r} must not be going on already, got {holder} that works on it: wait for its "
            "end, or stop it first"
        ) from error
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    if not os.fstat(descriptor).st_nlink:  # its holder has just removed it
        os.close(descriptor)
        return _locked(path, run_id)
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return descriptor
