"""Bits that flip in tables' files are found out by whoever reads them, or change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis.load import LoadError, load
from spatl_ray.errors import ResultsError
from spatl_ray.results import files
from spatl_ray.results.inventory import refuse_lost_rows
from spatl_ray.results.writer import ResultsWriter

MakeRow = Callable[..., dict[str, object]]


@pytest.fixture
def table(tmp_path: Path, make_row: MakeRow) -> Path:
    """The file of a table with numbers that no compression makes shorter."""
    generator = np.random.default_rng(0)
    writer = ResultsWriter(tmp_path, "run")
    writer.start(make_row("runs"))
    for round_ in range(10):
        losses = generator.random(20).tolist()
        writer.add(
            "clients",
            [
                make_row("clients", round=round_, client=client, global_test_loss=loss)
                for client, loss in enumerate(losses)
            ],
        )
    writer.finish("finished")
    return files.round_file(files.run_folder(tmp_path, "clients", "run"), 0)


def flipped(path: Path, step: int) -> Iterator[int]:
    """The file with one bit flipped, at places all over its pages; behind them is the footer."""
    data = path.read_bytes()
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place in range(4, end, step):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        yield place


def test_no_flipped_bit_changes_a_number(tmp_path: Path, table: Path) -> None:
    right, read = files.read(table), load(tmp_path, "clients")
    refused = 0
    for place in flipped(table, 61):
        try:
            with files.reported("read", table):
                assert files.read(table).equals(right), place
        except ResultsError:
            refused += 1
        try:
            assert load(tmp_path, "clients").equals(read), place
        except LoadError:
            refused += 1
    assert refused > 60


def test_damaged_rows_are_found_out_before_a_run_goes_on(tmp_path: Path, table: Path) -> None:
    """Also in a column that going on does not look at."""
    data, names = bytearray(table.read_bytes()), pq.read_schema(table).names
    column = pq.read_metadata(table).row_group(0).column(names.index("global_test_loss"))
    data[column.dictionary_page_offset + column.total_compressed_size // 2] ^= 1
    table.write_bytes(data)
    with pytest.raises(ResultsError, match=r"cannot read .*clients.*round-000000\.parquet"):
        refuse_lost_rows(tmp_path, "run", 10, {"clients": 200})
