"""Pack the tables of many runs into one file each, to be kept or published, and lay them out again.

python analysis/pack.py RESULTS [RESULTS ...] --out FOLDER [--tables runs rounds ...] [--by model]
python analysis/pack.py FOLDER --unpack --out RESULTS

A packed folder has all rows of a table in FOLDER/TABLE.parquet, with the run's id in column run_id. All of
analysis/ reads it like a results folder; laid out again, a sweep goes on from it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.load import TABLES, LoadError, Results, each_run, load, run_ids

_NAME = re.compile(r"(?!\.\.?$)[^/\\\0]{1,200}")
"""What can name a folder."""

KEPT = ("runs", "rounds")
"""Tables that are packed unless others are named: those of clients and layers are many times as large."""


def pack(
    results: Results, out: Path, tables: Sequence[str] = KEPT, by: str | None = None
) -> list[Path]:
    """Write one file a table, runs in the order of their ids; packed tables that are there are replaced.

    Args:
        results: a results folder, or several.
        out: where to; made if it is not there.
        tables: which.
        by: a column of table runs: there is a folder for each of its values, called like the value.

    Raises:
        LoadError: the results cannot be read, have no rows of a table, or no such column; a value that is no
            name of a folder; or `out` is a results folder itself.
    """
    made = {
        folder: {name: _packed(results, name, ids, folder) for name in tables}
        for folder, ids in _groups(results, out, by).items()
    }
    for folder in made:
        if taken := [folder / table for table in TABLES if any((folder / table).glob("run_id=*"))]:
            raise LoadError(f"out must not hold results that are not packed, got {taken[0]}")
    paths = []
    for folder, packed in made.items():
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in packed.items():
            paths.append(folder / f"{name}.parquet")
            _write(table, paths[-1])
        for name in set(TABLES) - set(packed):
            (folder / f"{name}.parquet").unlink(missing_ok=True)
    return paths


def _groups(results: Results, out: Path, by: str | None) -> dict[Path, list[str]]:
    """The runs' ids by folder."""
    if by is None:
        return {out: run_ids(results)}
    rows = load(results, "runs", list(dict.fromkeys(["run_id", by])))
    for value in rows[by]:
        if not _NAME.fullmatch(str(value)) or pd.isna(value):
            raise LoadError(
                f"by must be a column of values that can name folders, got {value!r} in {by}"
            )
    return {out / str(value): own["run_id"].tolist() for value, own in rows.groupby(rows[by])}


def _packed(results: Results, name: str, ids: Sequence[str], folder: Path) -> pa.Table:
    """The rows of a table; a run without any has none in it."""
    own = sorted(set(ids) & set(run_ids(results, name)))
    if not own:
        raise LoadError(f"{name} holds no rows for {folder}")
    parts = [part for _, part in each_run(results, name, runs=own)]
    table = pa.concat_tables(parts, promote_options="default")
    return table.replace_schema_metadata(parts[0].schema.metadata)


def unpack(packed: str | Path, out: Path) -> list[Path]:
    """Write each run's rows to files of its own, unless table runs has its row there already.

    The rows of that table come last: what a sweep takes for finished is whole, and where this was broken off
    the same command goes on.

    Raises:
        LoadError: there are no packed tables, or they cannot be read; or `out` is the packed folder.
    """
    there = [name for name in TABLES if (Path(packed) / f"{name}.parquet").is_file()]
    if not there:
        raise LoadError(
            f"{packed} holds no packed tables: none of {', '.join(TABLES)} as NAME.parquet"
        )
    if any((out / f"{name}.parquet").is_file() for name in TABLES):
        raise LoadError(f"out must not hold packed tables, got {out}")
    taken = {path.parent.name for path in (out / "runs").glob("run_id=*/*") if _has_rows(path)}
    paths = []
    for name in sorted(there, key="runs".__eq__):
        for run_id, rows in each_run(packed, name):
            run = out / name / f"run_id={run_id}"
            if run.name in taken:
                continue
            run.mkdir(parents=True, exist_ok=True)
            paths.append(run / "round-000000.parquet")
            _write(rows.drop_columns("run_id"), paths[-1])
    return paths


def _has_rows(path: Path) -> bool:
    """Whether a file is one of a table's, and not one that was begun."""
    return path.suffix in (".parquet", ".compacted")


def _write(table: pa.Table, path: Path) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    pq.write_table(table, part, compression="zstd", compression_level=19, write_page_checksum=True)
    part.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack or lay out what the command line names; 1 if it cannot be read or written."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.unpack and (options.by or options.tables != KEPT):
        parser.error(
            "--by and --tables must be left out with --unpack, which lays out what is packed"
        )
    try:
        if options.unpack:
            paths = [path for each in options.results for path in unpack(each, options.out)]
            print(f"{len(paths)} files in {options.out}")
        else:
            print(*pack(options.results, options.out, options.tables, options.by), sep="\n")
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Tables of many runs as one file each, and back.")
    parser.add_argument(
        "results", nargs="+", help="results folders or addresses, or packed folders"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write to, on this machine"
    )
    parser.add_argument(
        "--tables",
        nargs="+",
        choices=TABLES,
        default=KEPT,
        metavar="TABLE",
        help=f"of {', '.join(TABLES)} (default: {', '.join(KEPT)})",
    )
    parser.add_argument(
        "--by", metavar="COLUMN", help="a folder for each value of a column of table runs, as model"
    )
    parser.add_argument("--unpack", action="store_true", help="lay a packed folder out again")
    return parser


if __name__ == "__main__":
    sys.exit(main())
