"""Writes one run's rows, a few files a flush, so that a kill at any moment leaves whole tables."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pyarrow as pa

from spatl_ray.errors import ResultsError
from spatl_ray.results import files
from spatl_ray.results.columns import Row, build
from spatl_ray.results.inventory import Inventory
from spatl_ray.results.remote import Remote
from spatl_ray.results.schema import KEYS, TABLES, file_schema

_ROW_TABLES = tuple(table for table in TABLES if table != "runs")
_OWN_COLUMNS = ("end", "status", "error")


@dataclass
class _Waiting:
    """Rows of a table that are not on the disk yet.

    Attributes:
        first: their first round.
        parts: the rows.
        before: rows in their file that are not of these; None until they were first written. A signal may
            end a flush when they are on the disk already: then the next one writes the same file again.
    """

    first: int
    parts: list[pa.Table] = field(default_factory=list)
    before: int | None = None


class ResultsWriter:
    """The tables of one run.

    Rows come in the order of their rounds. A round below the last one is a replay: from it on,
    everything written earlier is forgotten, except for events without a round: they are the run's
    history. Of rows with the same key the last one stays.

    Args:
        folder: the results folder; several runs share it.
        run_id: letters, digits, "_", "." and "-", and not a number or a date.
        overwrite: replace a run of this id; its rows go when `start` is called.
        flush_seconds: rows wait for the first new round after this time.
        resume_at: continue a run of this id: keep its rows before this round.
        remote: where the rows go besides, if the folder is a working copy of what is at an address.

    Raises:
        ResultsError: the id is no name, the run is already there (or, to be resumed, is not), or
            the folder cannot be written. Nothing of an earlier run has been touched.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        *,
        overwrite: bool = False,
        flush_seconds: float = 10.0,
        resume_at: int | None = None,
        remote: Remote | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._run_id = run_id
        self._resume_at = resume_at
        self._flush_seconds = flush_seconds
        self._remote = remote
        self._name = remote.address if remote else str(folder)
        self._run: dict[str, object] | None = None
        self._waiting: dict[str, _Waiting] = {}
        self._last_round = 0
        self._last_event_round = 0
        self._flushed = time.monotonic()
        self._inventory = Inventory(self._folder, run_id)
        _check_id(run_id)
        self._check_free(overwrite)
        files.check_writable(self._folder)

    def start(self, run: Mapping[str, object]) -> None:
        """Write the runs row with status "running".

        Args:
            run: every column of `runs` but end, status and error; run_id, start, sweep_id and
                trial_id may be left out. A resumed run keeps its first start.

        Raises:
            ResultsError: the run was started before, or the row does not fit the schema.
        """
        if self._run is not None:
            raise ResultsError(f"run {self._run_id!r} must be started once")
        if given := [name for name in _OWN_COLUMNS if name in run]:
            raise ResultsError(f"runs: column {given[0]!r} is the writer's own, not to be given")
        row = {"start": datetime.now(UTC), "sweep_id": None, "trial_id": None, **run}
        row |= {"end": None, "status": "running", "error": None}
        build("runs", [row], self._run_id)
        self.refuse_other_data(row)
        self._clear(row)
        self._run = row
        self._write_run(row)
        self.push()

    def add(self, table: str, rows: Sequence[Row]) -> None:
        """Take rows of rounds, clients, layers or events; they are on disk after the next flush.

        Args:
            table: which table.
            rows: one mapping a row with every column; run_id may be left out. Each row holds one
                round; an event without one is filed under the round last seen.

        Raises:
            ResultsError: the run is not started, or a row does not fit the schema.
        """
        self._check_running()
        if table == "runs":
            raise ResultsError("runs: its one row is written by start and finish, not by add")
        file_schema(table)
        if not rows:
            return
        columns = build(table, rows, self._run_id)
        first = self._enter(table, rows)
        self._waiting.setdefault(table, _Waiting(first)).parts.append(columns)

    def flush(self) -> None:
        """Write what waits; a table's rows go to the file of their first round.

        Raises:
            ResultsError: what was written before is gone, or nothing can be written.
        """
        self._inventory.check()
        for table, waiting in list(self._waiting.items()):
            path = files.round_file(self._place(table), waiting.first)
            if waiting.before is None:
                waiting.before = files.count(path) if path.exists() else 0
            new = pa.concat_tables(waiting.parts)
            rows = files.add(new, path, KEYS.get(table, ()), waiting.before)
            self._inventory.wrote(table, path, rows)
            del self._waiting[table]
        self.push()
        self._flushed = time.monotonic()

    def push(self) -> None:
        """Bring the run's files to where they go besides, if there is such a place.

        Raises:
            ResultsError: they cannot be written there.
        """
        if self._remote is not None:
            self._remote.push()

    def rows(self) -> dict[str, int]:
        """The number of rows on disk, by table."""
        found = self._inventory.rows()
        return {table: found[table] for table in _ROW_TABLES}

    def rewind(self, round_: int) -> None:
        """Forget the rows of `round_` and later, on disk or waiting: they will come again."""
        self.flush()
        for table in _ROW_TABLES:
            files.rewind(self._place(table), round_)
            self._inventory.look(table)
        self.push()
        self._last_round = self._last_event_round = round_

    def finish(self, status: str, error: str | None = None) -> None:
        """Flush, make each table one file, and write the run's end.

        Args:
            status: finished, interrupted or failed.
            error: what failed.

        Raises:
            ResultsError: the run is not started, the status is none of the three, or tables are not
                whole: the run's row then says that it failed, if that can be written. Of a run that
                failed already only rows that are lost are an error, not such as cannot be written.
        """
        row = {**self._check_running(), "end": datetime.now(UTC), "status": status, "error": error}
        if status == "running":
            raise ResultsError("status must be finished, interrupted or failed, got 'running'")
        build("runs", [row], self._run_id)
        if status == "failed":  # Now: rows that wait may take the disk's last room.
            self._say_failed(row, error)
        try:
            self._make_whole()
        except ResultsError as fault:
            said = f"{error}; {fault}" if error else f"ResultsError: {fault}"
            self._say_failed(row, said)
            # Else the caller has what came first; rows that are lost may be why.
            if status != "failed" or not self._inventory.is_whole():
                raise
            return
        self._write_run(row)
        self.push()
        self._run = None

    def _say_failed(self, row: Mapping[str, object], error: str | None) -> None:
        """Write that the run failed, if that can be written."""
        with suppress(ResultsError):
            if self._inventory.has("runs"):
                self._write_run({**row, "status": "failed", "error": error})

    def _make_whole(self) -> None:
        """Flush, and make each table one file."""
        self.flush()
        for table in _ROW_TABLES:
            files.compact(self._place(table))
            self._inventory.compacted(table)
        self.push()

    def _enter(self, table: str, rows: Sequence[Row]) -> int:
        """Take note of the rows' rounds, flush or rewind as they tell; return their first round."""
        rounds = [int(cast(int, row["round"])) for row in rows if row["round"] is not None]
        if table == "events":
            self._last_event_round = max([self._last_event_round, self._last_round, *rounds])
            return self._last_event_round
        first, last = min(rounds), max(rounds)
        if first < self._last_round:
            self.rewind(first)
        elif first > self._last_round and self._is_due():
            self.flush()
        self._last_round = last
        return first

    def _is_due(self) -> bool:
        return time.monotonic() - self._flushed >= self._flush_seconds

    def _place(self, table: str) -> Path:
        return files.run_folder(self._folder, table, self._run_id)

    def _check_running(self) -> dict[str, object]:
        if self._run is None:
            raise ResultsError(f"run {self._run_id!r} must be started, and not be finished")
        return self._run

    def _check_free(self, overwrite: bool) -> None:
        taken = any(files.is_taken(self._place(table)) for table in TABLES)
        taken = taken or (self._remote is not None and self._remote.is_taken())
        if self._resume_at is not None and not taken:
            raise ResultsError(f"there is no run {self._run_id!r} to resume in {self._name}")
        if taken and self._resume_at is None and not overwrite:
            raise ResultsError(
                f"run {self._run_id!r} is already in {self._name}: take "
                "results.overwrite=true, another name or another results.folder; "
                "spatl resume goes on with one that was broken off"
            )

    def refuse_other_data(self, row: Mapping[str, object]) -> None:
        """The same config on other data is another run: it must not replace this one.

        Whoever resumes a run has judged its data.

        Raises:
            ResultsError: it is such a run.
        """
        if self._resume_at is not None:
            return
        path = files.round_file(self._place("runs"), 0)
        if not path.exists():
            return
        try:
            before = files.read(path, ["data_fingerprint"])
        except (OSError, pa.ArrowException):
            return  # A damaged run can only be replaced.
        (fingerprint,) = before["data_fingerprint"].to_pylist()
        if fingerprint != row["data_fingerprint"]:
            raise ResultsError(
                f"run {self._run_id!r} in {self._name} is one of other data (fingerprint "
                f"{fingerprint}, not {row['data_fingerprint']}): give this one another name"
            )

    def _clear(self, row: dict[str, object]) -> None:
        """Make room: drop the old run (its runs row last), or what a resumed run does again."""
        if self._resume_at is None:
            for table in (*_ROW_TABLES, "runs"):
                files.remove(self._place(table))
            return
        for table in TABLES:
            files.repair(self._place(table))
        self.rewind(self._resume_at)
        path = files.round_file(self._place("runs"), 0)
        with files.reported("read", path):
            if path.exists():
                row["start"] = files.read(path)["start"][0].as_py()

    def _write_run(self, row: Mapping[str, object]) -> None:
        path = files.round_file(self._place("runs"), 0)
        files.write(build("runs", [row], self._run_id), path)
        self._inventory.wrote("runs", path, 1)


def _check_id(run_id: str) -> None:
    """Refuse what is no name of a folder, or what readers of hive paths would take for a number."""
    if not re.fullmatch(r"[\w.-]+", run_id) or re.fullmatch(r"[\d.eE-]+", run_id):
        raise ResultsError(
            'run_id must be made of letters, digits, "_", "." and "-", and not be a number or '
            f"a date, got {run_id!r}"
        )
