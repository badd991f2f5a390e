"""The files of one run and table: each whole or absent, and no row in two of them.

A run's rows of a table lie in FOLDER/TABLE/run_id=RUN/round-NNNNNN.parquet; NNNNNN is the first
round in the file. The files' ranges of rounds do not overlap. A file is written under a hidden
name that does not end in .parquet, synced, and renamed, so no reader meets half a file.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spatl_ray.errors import ResultsError
from spatl_ray.places import sync

ROWS_A_GROUP = 2**17
"""Rows a row group of a compacted file, so that compaction needs memory for these only."""

_NAME = re.compile(r"round-(\d+)\.parquet")
_COMPACTED = ".compacted"


def run_folder(folder: Path, table: str, run_id: str) -> Path:
    """Where a run's rows of a table lie."""
    return folder / table / f"run_id={run_id}"


def round_file(run: Path, round_: int) -> Path:
    """The file whose first round is `round_`."""
    return run / f"round-{round_:06d}.parquet"


def first_round(path: Path) -> int:
    """The round that a file's name states."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise ResultsError(f"a results file must be named round-NNNNNN.parquet, got {path}")
    return int(found[1])


def written(run: Path) -> list[Path]:
    """The run's files that readers see, by first round."""
    found = [path for path in run.glob("round-*.parquet") if _NAME.fullmatch(path.name)]
    return sorted(found, key=first_round)


def is_taken(run: Path) -> bool:
    """Whether the run has rows in this table."""
    return bool(written(run)) or any(run.glob(f".*{_COMPACTED}"))


@contextmanager
def reported(what: str, path: Path) -> Iterator[None]:
    """Turn what the file system or Arrow refuses into a ResultsError that names the path."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:  # names that are no text, too
        raise ResultsError(f"cannot {what} {path}: {error}") from error


def check_writable(folder: Path) -> None:
    """Create the folder and a file in it: permission bits do not tell (root, read-only mounts).

    Raises:
        ResultsError: either cannot be done.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise ResultsError(
            f"results.folder must be a folder that can be written, got {folder} ({error}): "
            "take another results.folder"
        ) from error


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A file's rows, which are compared with their checksums.

    Args:
        path: of the file.
        columns: which ones, or all.
    """
    return pq.read_table(
        path,
        columns=None if columns is None else list(columns),
        partitioning=None,
        page_checksum_verification=True,
    )


def write(table: pa.Table, path: Path) -> None:
    """Write a table as the file `path`, replacing it if it is there."""
    _replace(path, table.schema, lambda writer: writer.write_table(table))


def add(table: pa.Table, path: Path, keys: Sequence[str], before: int) -> int:
    """Write rows behind the first `before` ones of the file `path`, instead of what is there behind them.

    Of rows with equal keys, old or new, the last one stays.

    Returns:
        How many rows it has then.
    """
    with reported("read", path):
        if before:
            old = read(path).slice(0, before)
            table = pa.concat_tables([old, table])
    table = _latest(table, keys) if keys else table
    write(table, path)
    return int(table.num_rows)


def count(path: Path) -> int:
    """The number of rows of a file."""
    with reported("read", path):
        return int(pq.read_metadata(path).num_rows)


def count_before(run: Path, round_: int) -> int:
    """The number of the run's rows before a round, and of those without one, also after a crash.

    All columns are read: what is damaged shows now, not when the run has ended.
    """
    found: list[int] = []
    for path in list(run.glob(f".*{_COMPACTED}")) or written(run):
        with reported("read", path):
            rounds = read(path)["round"]
        found.append(pc.sum(_is_before(rounds, round_)).as_py() or 0)
    return sum(found)


def rewind(run: Path, round_: int) -> None:
    """Remove the rows of `round_` and later ones, from the last file to the first.

    Rows without a round (events of the run, not of a round) stay.
    """
    for path in reversed(written(run)):
        with reported("rewind", path):
            _keep_before(path, round_)


def _keep_before(path: Path, round_: int) -> None:
    """Leave a file's rows below `round_` and those without a round; no file, if there are none."""
    rounds = read(path, ["round"])["round"]
    kept = _is_before(rounds, round_)
    if not pc.any(kept).as_py():
        path.unlink()
    elif not pc.all(kept).as_py():
        write(read(path).filter(kept), path)


def _is_before(rounds: pa.ChunkedArray, round_: int) -> pa.ChunkedArray:
    """Which rows stay if a run goes back to a round."""
    return pc.fill_null(pc.less(rounds, round_), True)


def compact(run: Path) -> None:
    """Make the run's files one.

    The rows are first written under a hidden name, whole; then the other files go, the last
    first; then the hidden file takes the place of the first. Whatever step a crash leaves out,
    a reader sees a prefix of the rounds, no row twice, and `repair` does the rest.
    """
    paths = written(run)
    if len(paths) < 2:
        return

    def copy(writer: pq.ParquetWriter) -> None:
        for group in _groups(paths):
            writer.write_table(group)

    with reported("compact", run):
        schema = pq.read_schema(paths[0])
    _replace(run / f".{paths[0].stem}{_COMPACTED}", schema, copy)
    repair(run)


def repair(run: Path) -> None:
    """Finish a compaction that a crash interrupted, and remove half-written files."""
    with reported("repair", run):
        for compacted in run.glob(f".*{_COMPACTED}"):
            first = run / f"{compacted.name[1:].removesuffix(_COMPACTED)}.parquet"
            for path in reversed(written(run)):
                if path != first:
                    path.unlink()
            compacted.replace(first)
        for half in run.glob(".*.writing"):
            half.unlink()


def remove(run: Path) -> None:
    """Remove the run's rows in this table."""
    with reported("remove", run):
        if run.exists():
            shutil.rmtree(run)


def _groups(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """The files' rows in order, gathered to tables of about ROWS_A_GROUP rows."""
    gathered: list[pa.Table] = []
    for path in paths:
        gathered.append(read(path))
        if sum(table.num_rows for table in gathered) >= ROWS_A_GROUP:
            yield pa.concat_tables(gathered)
            gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def _latest(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Of rows with equal keys the last one, in the order of the table."""
    numbered = table.select(keys).append_column("row", pa.array(range(table.num_rows), pa.int64()))
    last = numbered.group_by(list(keys)).aggregate([("row", "max")])["row_max"]
    if len(last) == table.num_rows:
        return table
    return table.take(last.combine_chunks().sort())


def _replace(path: Path, schema: pa.Schema, fill: Callable[[pq.ParquetWriter], None]) -> None:
    """Write a Parquet file under a hidden name, sync it, and rename it to `path`."""
    half = path.with_name(f".{path.name.lstrip('.')}.writing")
    with reported("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pq.ParquetWriter(
                half, schema, compression="zstd", write_page_checksum=True
            ) as writer:
                fill(writer)
            sync(half)
            half.replace(path)
            sync(path.parent)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
