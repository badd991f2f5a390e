"""Availability from a file: looked up right, and every fault named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray import config
from spatl_ray.errors import ConfigError, DataError
from spatl_ray.federation.availability import Availability, make_availability

CLIENTS = 5
HEADER = "client,first_round,last_round\n"

stays = st.tuples(st.integers(0, CLIENTS - 1), st.integers(0, 12), st.integers(0, 5))


def text_of(rows: list[tuple[int, int, int]]) -> str:
    return HEADER + "".join(f"{client},{first},{last}\n" for client, first, last in rows)


def from_file(path: Path, period: int | None = None) -> Availability:
    return make_availability(config.Traced(file=str(path), period=period), CLIENTS, 0)


def refused(path: Path, content: str, rule: str, period: int | None = None) -> None:
    """`content` must be refused by a message that names the file and states the rule."""
    file = path / "trace.csv"
    file.write_text(content)
    with pytest.raises(DataError, match=rf"availability\.file \S*trace\.csv: {rule}"):
        from_file(file, period)


@given(rows=st.lists(stays, min_size=1, max_size=25), period=st.none() | st.integers(18, 25))
def test_who_is_there_is_who_has_a_row(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, int, int]],
    period: int | None,
) -> None:
    """Rows may overlap, stand in any order, and be missing for a client."""
    rows = [(client, first, first + more) for client, first, more in rows]
    file = tmp_path_factory.mktemp("traces") / "trace.csv"
    file.write_text(text_of(rows))
    available = from_file(file, period)
    asked = np.array([4, 0, 2, 2, 1, 3])
    for round_ in [*range(60), 10**9]:
        within = round_ if period is None else round_ % period
        expected = [
            any(client == each and first <= within <= last for client, first, last in rows)
            for each in asked
        ]
        assert available(round_, asked).tolist() == expected


def test_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    """Blanks around a CSV's numbers and an index that pandas wrote do not matter."""
    rows = [(0, 3, 5), (4, 0, 0), (2, 1, 9), (0, 4, 11)]
    (tmp_path / "plain.csv").write_text(text_of(rows))
    spaced = text_of(rows)[len(HEADER) :].replace(",", " , ")
    (tmp_path / "spaced.CSV").write_text(HEADER + spaced)
    columns = zip(*rows, strict=True)
    names = ("client", "first_round", "last_round")
    cells = {name: list(column) for name, column in zip(names, columns, strict=True)}
    pq.write_table(
        pa.table({"__index_level_0__": [7, 8, 9, 10], **cells}), tmp_path / "trace.parquet"
    )
    files = ["plain.csv", "spaced.CSV", "trace.parquet"]
    tables = [
        [from_file(tmp_path / file)(round_, np.arange(CLIENTS)).tolist() for round_ in range(15)]
        for file in files
    ]
    assert tables[0] == tables[1] == tables[2]
    assert np.sum(tables[0]) == 9 + 1 + 9


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    rule = "must have a column last_round, got the columns client, first_round, last"
    refused(tmp_path, "client,first_round,last\n1,2,3\n", rule)


def test_a_column_that_means_nothing_is_named(tmp_path: Path) -> None:
    rule = "columns must be among client, first_round, last_round, got 'note', ''"
    refused(tmp_path, "client,note,first_round,last_round,\n1,a,2,3,0\n", rule)


def test_a_doubled_column_is_named(tmp_path: Path) -> None:
    rule = "must have one column client, got 2 of that name"
    refused(tmp_path, "client,first_round,last_round,client\n1,2,3,1\n", rule)


@pytest.mark.parametrize("hole", ["", "NaN", "NA", "null"])
def test_a_hole_is_named(tmp_path: Path, hole: str) -> None:
    content = HEADER + f"1,2,3\n1,{hole},3\n"
    refused(tmp_path, content, "row 2: first_round must be a number, got nothing")


@pytest.mark.parametrize("word", ["soon", "0x10", "1_000", "inf", "true", "2020-01-01"])
def test_what_is_no_number_is_named(tmp_path: Path, word: str) -> None:
    content = HEADER + f"1,2,3\n0,2,{word}\n"
    refused(tmp_path, content, f"row 2: last_round must be a number, got {word}")


def test_a_number_beyond_floating_point_is_refused(tmp_path: Path) -> None:
    refused(
        tmp_path, HEADER + "1,2,1e999\n", "row 1: last_round must be a finite number, got 1e999"
    )


def test_half_a_round_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, HEADER + "1,2.5,3\n", "row 1: first_round must be a whole number, got 2.5")


@pytest.mark.parametrize("client", [-1, 5])
def test_a_client_that_does_not_exist_is_refused(tmp_path: Path, client: int) -> None:
    content = HEADER + f"0,0,1\n4,0,1\n{client},0,1\n"
    refused(tmp_path, content, rf"row 3: client must be in \[0, 5\), got {client}")


@pytest.mark.parametrize("round_", [-2, 2**31])
def test_a_round_out_of_range_is_refused(tmp_path: Path, round_: int) -> None:
    rule = rf"row 1: first_round must be in \[0, 2147483648\), got {round_}"
    refused(tmp_path, HEADER + f"0,{round_},{2**31 - 1}\n", rule)


def test_an_end_before_the_start_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, HEADER + "0,1,1\n0,7,6\n", "row 2: last_round must be at least first_round")


def test_a_row_beyond_the_period_is_refused(tmp_path: Path) -> None:
    rule = r"row 2: last_round must be less than availability\.period, 24, got 24"
    refused(tmp_path, HEADER + "0,0,23\n1,20,24\n", rule, period=24)


@pytest.mark.parametrize("content", ["", HEADER, HEADER + "1,2\n", HEADER + '"1,2,3\n4,5,6\n'])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, content: str) -> None:
    refused(tmp_path, content, "must (be a readable file|have at least one row)")


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    for content in (b"cli\xffent,first_round,last_round\n1,2,3\n", HEADER.encode() + b"1,2,\xff\n"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"trace\.csv: must be a readable file"):
            from_file(file)


@pytest.mark.parametrize("cut", [0, 3, 50, -1, -9])
def test_parquet_that_is_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "trace.parquet"
    cells = {"client": [0, 1], "first_round": [0, 0], "last_round": [3, 3]}
    pq.write_table(pa.table(cells), file)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"trace\.parquet: must be a readable file"):
        from_file(file)


@pytest.mark.parametrize(
    ("cells", "rule"),
    [
        ([3, None], "row 2: last_round must be a finite number, got nothing"),
        ([3.0, float("nan")], "row 2: last_round must be a finite number, got nan"),
        ([True, False], "last_round must hold numbers, got bool"),
        ([[1], [2]], "last_round must hold numbers, got list"),
    ],
)
def test_parquet_cells_are_checked(tmp_path: Path, cells: list[object], rule: str) -> None:
    file = tmp_path / "trace.parquet"
    pq.write_table(pa.table({"client": [0, 1], "first_round": [0, 0], "last_round": cells}), file)
    with pytest.raises(DataError, match=rf"availability\.file \S*trace\.parquet: {rule}"):
        from_file(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"availability\.file \S*nowhere\.csv: .*FileNotFoundError"):
        from_file(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("name", ["trace.txt", "trace", "trace.csv.gz"])
def test_another_kind_of_file_is_refused(name: str) -> None:
    rule = rf"availability\.file must name a file that ends in \.csv or \.parquet, got '{name}'"
    with pytest.raises(ConfigError, match=rule):
        from_file(Path(name))
