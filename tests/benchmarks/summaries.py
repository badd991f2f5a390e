"""Ten million rows of clients, made up with the real schema, loaded into summaries of rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from figure import Figure

from analysis.clients import ACCURACY, by_round
from spatl_ray.results.files import round_file, run_folder
from spatl_ray.results.schema import file_schema

RUNS, ROUNDS, CLIENTS = 10, 500, 2_000
"""A run has a million rows."""

MOST_SECONDS = 10.0


def summaries(repeats: int) -> Iterator[Figure]:
    """Seconds from ten million rows in files to a row a run and round: mean, p10, worst, Jain."""
    with tempfile.TemporaryDirectory() as folder:
        for run in range(RUNS):
            _write_run(Path(folder), f"run-{run}")
        times = []
        for _ in range(repeats):
            start = perf_counter()
            table = by_round(folder)
            times.append(perf_counter() - start)
        if len(table) != RUNS * ROUNDS or int(table["clients"].sum()) != RUNS * ROUNDS * CLIENTS:
            raise AssertionError(f"rows were lost: {len(table)}")
    name = "seconds to summarise 10^7 client rows by round"
    yield Figure("summaries", name, float(np.median(times)), most=MOST_SECONDS)


def _write_run(folder: Path, run_id: str) -> None:
    """A run's table of clients, every column known; one file, as after the run's end."""
    path = round_file(run_folder(folder, "clients", run_id), 0)
    path.parent.mkdir(parents=True)
    generator = np.random.default_rng(int(run_id.rpartition("-")[2]))
    schema = file_schema("clients")
    size = ROUNDS * CLIENTS
    columns = {
        field.name: _column(field, generator, size)
        for field in schema
        if field.name not in ("round", "client")
    }
    columns["round"] = pa.array(np.repeat(np.arange(ROUNDS, dtype=np.int32), CLIENTS))
    columns["client"] = pa.array(np.tile(np.arange(CLIENTS), ROUNDS))
    columns[ACCURACY] = pa.array(generator.random(size))
    pq.write_table(pa.table({name: columns[name] for name in schema.names}, schema), path)


def _column(field: pa.Field, generator: np.random.Generator, size: int) -> pa.Array:
    """Values of a column's type."""
    if pa.types.is_boolean(field.type):
        return pa.array(np.ones(size, bool))
    if pa.types.is_string(field.type):
        return pa.array(["accepted"] * size)
    if pa.types.is_floating(field.type):
        return pa.array(generator.random(size))
    return pa.array(generator.integers(0, 1000, size), field.type)
