from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.errors import ResultsError
from spatl_ray.results import files


def _table(rounds: list[int | None], value: int = 0) -> pa.Table:
    return pa.table({"round": pa.array(rounds, pa.int32()), "value": [value] * len(rounds)})


def _rounds(run: Path) -> list[int | None]:
    tables = [pq.read_table(path, partitioning=None) for path in files.written(run)]
    return [value for table in tables for value in table["round"].to_pylist()]


def test_rows_added_to_a_file_replace_those_of_equal_keys(tmp_path: Path) -> None:
    path = files.round_file(tmp_path, 4)
    files.add(_table([4, 5], value=1), path, ["round"], 0)
    files.add(_table([5, 6, 6], value=2), path, ["round"], 2)
    assert pq.read_table(path).to_pylist() == [
        {"round": 4, "value": 1},
        {"round": 5, "value": 2},
        {"round": 6, "value": 2},
    ]


def test_rows_without_keys_all_stay(tmp_path: Path) -> None:
    path = files.round_file(tmp_path, 0)
    files.add(_table([1, 1]), path, [], 0)
    files.add(_table([1]), path, [], 2)
    assert _rounds(tmp_path) == [1, 1, 1]


@settings(deadline=None, max_examples=30)
@given(
    cuts=st.sets(st.integers(1, 11), max_size=5),
    back_to=st.integers(0, 13),
    compacted=st.booleans(),
)
def test_rewind_keeps_exactly_the_earlier_rounds(
    tmp_path_factory: pytest.TempPathFactory, cuts: set[int], back_to: int, compacted: bool
) -> None:
    run = tmp_path_factory.mktemp("run")
    edges = [0, *sorted(cuts), 12]
    for first, end in itertools.pairwise(edges):
        files.write(_table(list(range(first, end))), files.round_file(run, first))
    if compacted:
        files.compact(run)
    files.rewind(run, back_to)
    assert _rounds(run) == list(range(min(back_to, 12)))


def test_rewind_keeps_rows_without_a_round(tmp_path: Path) -> None:
    files.write(_table([None, 3, None, 5]), files.round_file(tmp_path, 2))
    files.write(_table([None, 6, 7]), files.round_file(tmp_path, 6))
    files.write(_table([8]), files.round_file(tmp_path, 8))
    files.rewind(tmp_path, 5)
    assert _rounds(tmp_path) == [None, 3, None, None]
    assert len(files.written(tmp_path)) == 2


def test_rewind_reaches_rows_in_any_file(tmp_path: Path) -> None:
    files.write(_table([5, 9]), files.round_file(tmp_path, 5))
    files.write(_table([None]), files.round_file(tmp_path, 8))
    files.rewind(tmp_path, 9)
    assert _rounds(tmp_path) == [5, None]


def test_compaction_keeps_order_schema_and_rows_over_several_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ROWS_A_GROUP", 5)
    for first in range(0, 12, 2):
        files.write(_table([first, first + 1]), files.round_file(tmp_path, first))
    files.compact(tmp_path)
    (only,) = files.written(tmp_path)
    assert only.name == "round-000000.parquet"
    assert _rounds(tmp_path) == list(range(12))
    assert pq.ParquetFile(only).metadata.num_row_groups == 2


def test_files_beyond_a_million_rounds_stay_in_order(tmp_path: Path) -> None:
    for first in (999_999, 1_000_000, 20):
        files.write(_table([first]), files.round_file(tmp_path, first))
    assert _rounds(tmp_path) == [20, 999_999, 1_000_000]


def test_a_failed_write_names_the_path_and_leaves_nothing(tmp_path: Path) -> None:
    blocked = files.round_file(tmp_path, 0)
    blocked.mkdir()
    with pytest.raises(ResultsError, match=r"cannot write .*round-000000\.parquet"):
        files.write(_table([0]), blocked)
    assert list(tmp_path.iterdir()) == [blocked]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = files.round_file(tmp_path, 0)
    path.write_bytes(b"not parquet")
    with pytest.raises(ResultsError, match=r"cannot rewind .*round-000000\.parquet"):
        files.rewind(tmp_path, 1)
