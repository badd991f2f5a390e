"""Results, in folders or at addresses such as s3://bucket/path, to pandas frames, by way of pyarrow.dataset.

A run's rows of a table lie in RESULTS/TABLE/run_id=RUN/round-NNNNNN.parquet. Where a crash cut the
compaction of a finished run short, a hidden `.round-NNNNNN.compacted` holds all its rows and
stands for the visible files, so that every row is read exactly once. A packed folder (`analysis/pack.py`) has
the rows of all runs in RESULTS/TABLE.parquet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from analysis.places import LoadError as LoadError
from analysis.places import Place, place_of

SCHEMA_VERSION = 1
"""The version of the tables that this code reads."""

TABLES = ("runs", "rounds", "clients", "layers", "events")

ADDED: Mapping[str, Mapping[str, pa.DataType]] = {
    "runs": {"holdings": pa.string(), "sweep_id": pa.string(), "trial_id": pa.string()},
    "rounds": {
        "inference_flops_share_mean": pa.float64(),
        "selection_reward_mean": pa.float64(),
        "selection_evaluations": pa.int64(),
        "selection_share": pa.float64(),
        "late": pa.int32(),
        "simulated_seconds": pa.float64(),
        "simulated_seconds_cumulative": pa.float64(),
        "local_test_clients": pa.int32(),
        "panel_clients": pa.int32(),
        "panel_local_test_accuracy_mean": pa.float64(),
        "update_cosine_mean": pa.float64(),
        "control_norm": pa.float64(),
    },
    "clients": {
        "inference_flops_share": pa.float64(),
        "selection_reward": pa.float64(),
        "selection_evaluations": pa.int64(),
        "seconds_selection": pa.float64(),
        "simulated_seconds_train": pa.float64(),
        "simulated_seconds_uplink": pa.float64(),
        "simulated_seconds_downlink": pa.float64(),
        "simulated_seconds": pa.float64(),
        "update_norm": pa.float64(),
        "control_norm": pa.float64(),
    },
}
"""Columns that older tables of this version lack: they are null there."""

Results = str | Path | Sequence[str | Path]
"""A results folder, or its address; or several."""

_RUN_ID = ds.partitioning(pa.schema([("run_id", pa.string())]), flavor="hive")
_CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
_ATTEMPTS = 5
_RUN = "run_id="
_FILE = re.compile(r"round-\d+\.parquet|\.round-\d+\.compacted")


def load(
    results: Results,
    table: str,
    columns: Sequence[str] | None = None,
    runs: Iterable[str] | None = None,
    where: pc.Expression | None = None,
) -> pd.DataFrame:
    """A table of one or several results folders, runs in the order of their ids.

    Args:
        results: a results folder, or several.
        table: runs, rounds, clients, layers or events.
        columns: the columns to read, or all.
        runs: the ids of the runs to read, or all; the others' files are not opened.
        where: which rows, e.g. `pyarrow.compute.field("round") == 9`; parts of files that hold none
            are not read.

    Raises:
        LoadError: a folder is missing, holds no tables, or tables of another schema version; a
            table, column or run is not there, a file is damaged, or the table has no rows; or two
            folders hold a run of one id.
    """
    parts = [part for _, part in each_run(results, table, columns, runs, where)]
    chosen = pa.concat_tables(parts)
    if chosen.num_rows == 0:
        raise LoadError(f"{table} holds no rows in {_names(_folders(results))}")
    frame: pd.DataFrame = chosen.to_pandas()
    return frame


def each_run(
    results: Results,
    table: str,
    columns: Sequence[str] | None = None,
    runs: Iterable[str] | None = None,
    where: pc.Expression | Mapping[str, pc.Expression] | None = None,
) -> Iterator[tuple[str, pa.Table]]:
    """The rows of one run after the other, so that one of them is in memory at a time.

    Args, Raises:
        As for `load`; a run may have no rows, and `where` may be of each run its own.
    """
    if table not in TABLES:
        raise LoadError(f"table must be one of {', '.join(TABLES)}, got {table!r}")
    folders = _folders(results)
    for run_id, place in _chosen(folders, table, runs).items():
        own = where[run_id] if isinstance(where, Mapping) else where
        yield (
            run_id,
            _read(place, table, columns, _of_run(run_id, own) if _is_packed(place) else own),
        )


def run_ids(results: Results, table: str = "runs") -> list[str]:
    """The runs that have rows of a table, in the order of their ids."""
    return sorted(_places(_folders(results), table))


def holds(results: Results, table: str) -> bool:
    """Whether some run of the folders has rows of a table."""
    return bool(_places(_folders(results), table))


def _folders(results: Results) -> list[Place]:
    several = [results] if isinstance(results, str | Path) else results
    return [place_of(each) for each in several]


def _chosen(
    folders: Sequence[Place], table: str, runs: Iterable[str] | None
) -> Mapping[str, Place]:
    """Where the rows of the wanted runs lie, in the order of their ids."""
    places = _places(folders, table)
    if not places:
        raise LoadError(f"{table} holds no rows in {_names(folders)}")
    wanted = sorted(places if runs is None else set(runs))
    if not wanted:
        raise LoadError("runs must name at least one run, or be None for all")
    if absent := [run_id for run_id in wanted if run_id not in places]:
        raise LoadError(
            f"no rows of run {absent[0]!r} in {table}; runs there: {', '.join(sorted(places))}"
        )
    return {run_id: places[run_id] for run_id in wanted}


def _read(
    run: Place, table: str, columns: Sequence[str] | None, where: pc.Expression | None
) -> pa.Table:
    """A run's rows; its files are looked up again if it was being compacted meanwhile."""
    for attempt in range(_ATTEMPTS):
        try:
            dataset = _with_added(_dataset(run), table)
            names = dataset.schema.names
            if unknown := [name for name in columns or () if name not in names]:
                raise LoadError(
                    f"{table} has no column {unknown[0]!r}; columns: {', '.join(names)}"
                )
            chosen = None if columns is None else list(columns)
            return dataset.to_table(columns=chosen, filter=where)
        except FileNotFoundError as error:
            if attempt == _ATTEMPTS - 1:
                raise LoadError(f"cannot read {table}: {error}") from error
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise LoadError(
                f"{run} cannot be read: {error}; copy it again, or move it out of the folder"
            ) from error
    raise AssertionError("unreachable")


def _places(folders: Sequence[Place], table: str) -> dict[str, Place]:
    """Where each run's rows of the table lie, by run id; none if nobody has any."""
    places: dict[str, Place] = {}
    for folder in folders:
        _check_folder(folder)
        found = [(run.name.removeprefix(_RUN), run) for run in _with_rows(folder / table)]
        for run_id, place in found + [
            (run_id, file) for file in _packed(folder, table) for run_id in _ids(file)
        ]:
            if run_id in places:
                both = [p if _is_packed(p) else p.parent for p in (places[run_id], place)]
                raise LoadError(f"run {run_id!r} is there twice: in {both[0]} and in {both[1]}")
            places[run_id] = place
    return places


def _packed(folder: Place, *tables: str) -> list[Place]:
    """The files that hold the rows of all runs."""
    names = {f"{table}.parquet" for table in tables}
    return [place for place in folder.children() if place.name in names]


def _is_packed(place: Place) -> bool:
    return place.name.endswith(".parquet")


def _ids(packed: Place) -> list[str]:
    ids = _read(packed, packed.name, ["run_id"], None)["run_id"]
    return [str(run_id) for run_id in ids.unique().to_pylist()]


def _of_run(run_id: str, where: pc.Expression | None) -> pc.Expression:
    own = pc.field("run_id") == run_id
    return own if where is None else own & where


def _check_folder(folder: Place) -> None:
    if not folder.is_folder():
        raise LoadError(f"there is no results folder {folder}")
    tables = (folder / table for table in TABLES)
    runs = any(path.name.startswith(_RUN) for table in tables for path in table.children())
    if not runs and not _packed(folder, *TABLES):
        raise LoadError(
            f"{folder} holds no results: none of {', '.join(TABLES)} with a run_id=... folder in it"
        )


def _with_rows(table: Place) -> list[Place]:
    """The folders of runs with rows, by name."""
    found = {path.parent for path in table.children(deep=True) if _FILE.fullmatch(path.name)}
    own = [run for run in found if run.parent == table and run.name.startswith(_RUN)]
    return sorted(own, key=lambda run: run.name)


def _files(run: Place) -> list[Place]:
    """The files that hold each row of the run once, by first round."""
    found = [path for path in run.children() if _FILE.fullmatch(path.name)]
    whole = [path for path in found if path.name.startswith(".")]
    return sorted(whole or found, key=lambda path: int(path.name.split("-")[1].split(".")[0]))


def _dataset(run: Place) -> ds.Dataset:
    """One run's rows, run_id from the path."""
    paths = [place.path for place in ([run] if _is_packed(run) else _files(run))]
    if not paths:
        raise FileNotFoundError(f"{run} lost its files")
    metadata = pq.read_schema(paths[0], filesystem=run.files).metadata or {}
    version = metadata.get(b"spatl_schema_version", b"none")
    if version.decode() != str(SCHEMA_VERSION):
        raise LoadError(
            f"{run} holds tables of schema version {version.decode()}; "
            f"this code reads version {SCHEMA_VERSION}: read it with that version's, apart from others"
        )
    return ds.dataset(
        paths,
        filesystem=run.files,
        format=_CHECKED,
        partitioning=_RUN_ID,
        partition_base_dir=run.parent.path,
    )


def _with_added(dataset: ds.Dataset, table: str) -> ds.Dataset:
    """The dataset with all columns of its table, null where its files lack one."""
    schema = dataset.schema
    for name, kind in ADDED.get(table, {}).items():
        field = pa.field(name, kind)
        place = schema.get_field_index(name)
        schema = schema.append(field) if place < 0 else schema.set(place, field)
    return dataset.replace_schema(schema)


def _names(folders: Sequence[Place]) -> str:
    return ", ".join(str(folder) for folder in folders) or "no folder at all"
