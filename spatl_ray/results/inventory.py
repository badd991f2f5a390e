"""What a run has written of its tables, so that rows that get lost are not passed over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spatl_ray.errors import ResultsError
from spatl_ray.results import files
from spatl_ray.results.schema import TABLES


class Inventory:
    """A run's files and the rows in each, as this process left them.

    Args:
        folder: the results folder.
        run_id: of the run.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self._folder, self._run_id = folder, run_id
        self._rows: dict[str, dict[Path, int]] = {table: {} for table in TABLES}

    def wrote(self, table: str, path: Path, rows: int) -> None:
        """A file now holds so many rows."""
        self._rows[table][path] = rows

    def look(self, table: str) -> None:
        """Take a table as it is: this process has just changed any of its files."""
        found = files.written(files.run_folder(self._folder, table, self._run_id))
        self._rows[table] = {path: files.count(path) for path in found}

    def compacted(self, table: str) -> None:
        """The table was made one file.

        Raises:
            ResultsError: rows are gone.
        """
        before = self.rows()[table]
        self.look(table)
        if self.rows()[table] < before:
            place = files.run_folder(self._folder, table, self._run_id)
            raise self._lost(f"fewer rows than that in {place}")

    def rows(self) -> dict[str, int]:
        """The number of rows by table."""
        return {table: sum(own.values()) for table, own in self._rows.items()}

    def check(self) -> None:
        """Whether everything is still there.

        Raises:
            ResultsError: a file is gone.
        """
        for table, own in self._rows.items():
            there = set(files.written(files.run_folder(self._folder, table, self._run_id)))
            for path in sorted(own.keys() - there):
                raise self._lost(f"no {self._uppermost(path)} any more")

    def is_whole(self) -> bool:
        """Whether everything is still there."""
        try:
            self.check()
        except ResultsError:
            return False
        return True

    def has(self, table: str) -> bool:
        """Whether a table's files are still there."""
        return all(path.exists() for path in self._rows[table])

    def _uppermost(self, gone: Path) -> Path:
        """The folder that was removed, of what is gone in it."""
        while gone != self._folder and not gone.parent.exists():
            gone = gone.parent
        return gone

    def _lost(self, got: str) -> ResultsError:
        return ResultsError(
            f"what run {self._run_id!r} has written must stay in {self._folder} while it goes on, got "
            f"{got}: it was moved or removed, and tables without its rows would look whole"
        )


def refuse_lost_rows(folder: Path, run_id: str, round_: int, expected: Mapping[str, int]) -> None:
    """Before a run goes on from a checkpoint: its tables must have the rows from before it.

    Args:
        folder: the results folder.
        run_id: of the run.
        round_: the first round to come.
        expected: the least number of rows of earlier rounds, by table.

    Raises:
        ResultsError: rows are gone; nothing has been touched.
    """
    for table, least in expected.items():
        found = files.count_before(files.run_folder(folder, table, run_id), round_)
        if found < least:
            raise ResultsError(
                f"{folder / table} must hold the {least} rows that run {run_id!r} wrote before round "
                f"{round_}, got {found}: the others are lost, and the run cannot go on without them. Put "
                "them back, or run it from the beginning with results.overwrite=true"
            )
