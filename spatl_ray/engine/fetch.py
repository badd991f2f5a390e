"""Brings a run from an address to where commands that read it look."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from spatl_ray.addresses import working_folder
from spatl_ray.engine.lock import alone
from spatl_ray.results.remote import remote_of


def fetch(folder: str | Path, run_id: str, only: Collection[str] = ()) -> None:
    """Bring a run to its working folder, if it is at an address and nobody works on it.

    Args:
        folder: the results folder, or an address.
        run_id: of the run.
        only: the tables to bring; none means all, and what is beside them.

    Raises:
        SpatlError: there is no such run, it cannot be read, or a process of this machine works on it.
    """
    if (remote := remote_of(folder, run_id)) is not None:
        with alone(working_folder(folder), run_id):
            remote.pull(only)
