"""What a finished run wrote, for commands that go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spatl_ray.errors import ResultsError
from spatl_ray.results.files import read, reported, run_folder, written
from spatl_ray.results.schema import TABLES

COUNTED = ("accepted", "clipped")
"""Statuses of a client whose update counted, and whose state was committed."""


def run_ids(folder: Path) -> list[str]:
    """The runs of a results folder, by name."""
    found = (folder / "runs").glob("run_id=*")
    return sorted(path.name.partition("=")[2] for path in found if written(path))


def read_run(folder: Path, run_id: str) -> dict[str, Any]:
    """A run's row of table `runs`.

    Raises:
        ResultsError: there is no such run; the error names those that are there. Or its row is lost.
    """
    files = written(run_folder(folder, "runs", run_id))
    if not files:
        if left := [table for table in TABLES if written(run_folder(folder, table, run_id))]:
            raise ResultsError(
                f"{folder / 'runs'} must hold the row of run {run_id!r}, got none, but rows of it in "
                f"{', '.join(left)}: it was removed"
            )
        there = ", ".join(run_ids(folder)) or "none"
        raise ResultsError(f"RUN must be a run in {folder}, got {run_id!r}; there are: {there}")
    with reported("read", files[0]):
        rows: list[dict[str, Any]] = read(files[0]).to_pylist()
    if not rows:
        raise ResultsError(
            f"{files[0]} must hold the row of run {run_id!r}, got none: it is damaged"
        )
    return rows[0]


def read_rounds(folder: Path, run_id: str) -> list[dict[str, Any]]:
    """A run's rows of table `rounds`, in order; of a round that is there twice, the one written last.

    Raises:
        ResultsError: rows that cannot be read.
    """
    rows: dict[int, dict[str, Any]] = {}
    for path in written(run_folder(folder, "rounds", run_id)):
        with reported("read", path):
            found = read(path).to_pylist()
        rows |= {row["round"]: row for row in found}
    return [rows[round_] for round_ in sorted(rows)]


def last_counted(folder: Path, run_id: str, client: int) -> int | None:
    """The last round in which a client's update counted, or None.

    Raises:
        ResultsError: rows that cannot be read.
    """
    for path in reversed(written(run_folder(folder, "clients", run_id))):
        with reported("read", path):
            table = read(path, ["round", "client", "status"])
        own = pc.and_(
            pc.equal(table["client"], client), pc.is_in(table["status"], pa.array(COUNTED))
        )
        rounds = table["round"].filter(own)
        if len(rounds):
            return int(pc.max(rounds).as_py())
    return None
