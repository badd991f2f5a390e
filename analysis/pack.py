"""Pack the tables of many runs into one file each, to be kept or published, and lay them out again.

python analysis/pack.py RESULTS [RESULTS ...] --out FOLDER [--tables runs rounds ...] [--by model]
python analysis/pack.py FOLDER --unpack --out RESULTS

A packed folder has all rows of a table in FOLDER/TABLE.parquet, with the run's id in column run_id. All of
analysis/ reads it like a results folder; laid out again, a sweep goes on from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.load import TABLES, LoadError, Results, each_run, holds, load, run_ids

KEPT = ("runs", "rounds")
"""Tables that are packed unless others are named: those of clients and layers are many times as large."""


def pack(
    results: Results, out: Path, tables: Sequence[str] = KEPT, runs: Iterable[str] | None = None
) -> list[Path]:
    """Write one file a table, runs in the order of their ids; what is there is replaced.

    Args:
        results: a results folder, or several.
        out: where to; made if it is not there.
        tables: which.
        runs: ids of the runs, or all; one without rows of a table is not in its file.

    Raises:
        LoadError: the results cannot be read, or have no rows of a table.
    """
    chosen = None if runs is None else set(runs)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in tables:
        own = None if chosen is None else chosen & set(run_ids(results, name))
        parts = [part for _, part in each_run(results, name, runs=own)]
        table = pa.concat_tables(parts, promote_options="default")
        paths.append(out / f"{name}.parquet")
        _write(table.replace_schema_metadata(parts[0].schema.metadata), paths[-1])
    return paths


def pack_by(results: Results, column: str, out: Path, tables: Sequence[str] = KEPT) -> list[Path]:
    """The same in a folder for each value that a column of table runs has, called like the value.

    Raises:
        LoadError: as for `pack`, or there is no such column.
    """
    values = load(results, "runs", ["run_id", column])
    groups = values.groupby(column)["run_id"]
    return [path for value, ids in groups for path in pack(results, out / str(value), tables, ids)]


def unpack(packed: Path, out: Path) -> list[Path]:
    """Write each run's rows to a file of its own, unless it has rows there already.

    Raises:
        LoadError: there are no packed tables, or they cannot be read.
    """
    paths = []
    for name in TABLES:
        for run_id, rows in each_run(packed, name) if holds(packed, name) else ():
            run = out / name / f"run_id={run_id}"
            if any(run.glob("*.parquet")):
                continue
            run.mkdir(parents=True, exist_ok=True)
            paths.append(run / "round-000000.parquet")
            _write(rows.drop_columns("run_id"), paths[-1])
    return paths


def _write(table: pa.Table, path: Path) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    pq.write_table(table, part, compression="zstd", compression_level=19, write_page_checksum=True)
    part.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack or lay out what the command line names; 1 if it cannot be read or written."""
    options = _parser().parse_args(arguments)
    try:
        if options.unpack:
            paths = unpack(options.results[0], options.out)
            print(f"{len(paths)} files in {options.out}")
        else:
            print(*_packed(options), sep="\n")
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _packed(options: argparse.Namespace) -> list[Path]:
    if options.by is None:
        return pack(options.results, options.out, options.tables)
    return pack_by(options.results, options.by, options.out, options.tables)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Tables of many runs as one file each, and back.")
    parser.add_argument("results", nargs="+", type=Path, help="results folders, or a packed one")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
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
