"""Traces: CSV and Parquet files with columns of numbers; a fault names file, row and column."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from spatl_ray.arrays import Bits, Doubles, Integers
from spatl_ray.errors import ConfigError, DataError

NUMBER = r"^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$"

INDEX = re.compile(r"__index_level_\d+__")
"""How pandas names an index without a name in a Parquet file: no column that somebody misspelt."""


@dataclass(frozen=True, eq=False)
class Trace:
    """The columns of a file, not yet known to be numbers.

    Attributes:
        where: the config field and the file, as errors name them.
        table: the columns that were asked for; those of a CSV file as text.
    """

    where: str
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def has(self, column: str) -> bool:
        """Whether an optional column is there."""
        return column in self.table.column_names

    def numbers(self, column: str) -> Doubles:
        """A column as finite numbers.

        Raises:
            DataError: a cell that is empty or no finite number.
        """
        cells = self.table.column(column)
        if pa.types.is_string(cells.type):
            cells = pc.utf8_trim_whitespace(cells)
            is_number = pc.fill_null(pc.match_substring_regex(cells, NUMBER), False)
            self.require(column, is_number.to_numpy(), "be a number")
        elif not (pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type)):
            raise DataError(f"{self.where}: {column} must hold numbers, got {cells.type}")
        values: Doubles = pc.cast(cells, pa.float64(), safe=False).to_numpy()
        self.require(column, np.isfinite(values), "be a finite number")
        return values

    def integers(self, column: str, end: int) -> Integers:
        """A column as whole numbers in [0, end).

        Raises:
            DataError: a cell that is none.
        """
        values = self.numbers(column)
        self.require(column, values == np.floor(values), "be a whole number")
        self.require(column, (values >= 0) & (values < end), f"be in [0, {end})")
        return values.astype(np.int64)

    def require(self, column: str, good: Bits, rule: str) -> None:
        """Refuse the first row that is not good; rows are counted from 1, after a CSV's header.

        Raises:
            DataError: naming file, row, column, rule and what stands there.
        """
        if good.all():
            return
        row = int(np.argmin(good))
        cell = self.table.column(column)[row].as_py()
        got = "nothing" if cell is None else str(cell)
        raise DataError(f"{self.where}: row {row + 1}: {column} must {rule}, got {got}")


def read_trace(
    field: str, path: str, required: Collection[str], optional: Collection[str] = ()
) -> Trace:
    """Read columns of a CSV or Parquet file.

    Args:
        field: the config field that the path came from, for errors.
        path: the file; its name ends in .csv or .parquet.
        required: columns that must be there, once each.
        optional: columns that may be.

    Raises:
        ConfigError: a name that ends otherwise.
        DataError: a file that cannot be read, has no rows, lacks a column or has another one: a
            misspelt one would be ignored.
    """
    kind = Path(path).suffix.lower()
    if kind not in READERS:
        raise ConfigError(f"{field} must name a file that ends in .csv or .parquet, got {path!r}")
    names_of, columns_of = READERS[kind]
    where = f"{field} {path}"
    with _reported(where):
        names = names_of(path)
    wanted = _wanted(where, names, required, optional)
    with _reported(where):
        table = columns_of(path, wanted)
    if table.num_rows == 0:
        raise DataError(f"{where}: must have at least one row, got none")
    return Trace(where, table)


def _wanted(
    where: str, names: list[str], required: Collection[str], optional: Collection[str]
) -> list[str]:
    """The columns to read, if each required one is there, none is twice, and there are no others."""
    for column in required:
        if column not in names:
            has = ", ".join(names)
            raise DataError(f"{where}: must have a column {column}, got the columns {has}")
    wanted = [column for column in (*required, *optional) if column in names]
    for column in wanted:
        if names.count(column) > 1:
            raise DataError(
                f"{where}: must have one column {column}, got {names.count(column)} of that name"
            )
    unknown = [name for name in names if name not in wanted and not INDEX.fullmatch(name)]
    if unknown:
        raise DataError(
            f"{where}: columns must be among {', '.join((*required, *optional))}, "
            f"got {', '.join(map(repr, unknown))}"
        )
    return wanted


@contextmanager
def _reported(where: str) -> Iterator[None]:
    """Turn what the file system or Arrow refuses into a DataError that names the file."""
    try:
        yield
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(
            f"{where}: must be a readable file, got {type(error).__name__}: {error}"
        ) from error


def _csv_names(path: str) -> list[str]:
    with pyarrow.csv.open_csv(path) as reader:
        names: list[str] = reader.schema.names
    return names


def _csv_columns(path: str, columns: list[str]) -> pa.Table:
    # As text: a column of one wrong cell among numbers can then be read, and the cell be named.
    options = pyarrow.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=True,
    )
    return pyarrow.csv.read_csv(path, convert_options=options)


def _parquet_names(path: str) -> list[str]:
    names: list[str] = pyarrow.parquet.read_schema(path).names
    return names


def _parquet_columns(path: str, columns: list[str]) -> pa.Table:
    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read(columns=columns)


READERS = {
    ".csv": (_csv_names, _csv_columns),
    ".parquet": (_parquet_names, _parquet_columns),
}
"""By suffix: the names of a file's columns, and some of the columns."""
