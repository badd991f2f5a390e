"""Columns of a Parquet file as arrays, one column in memory at a time."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Floats, Integers
from spatl_ray.errors import DataError

INDEX = re.compile(r"__index_level_\d+__")
"""How pandas names an index that has no name: a number of the row, not a feature."""

Moments = tuple[float, float]
"""Mean and standard deviation of a column."""


def _index_columns(metadata: Mapping[bytes, bytes]) -> frozenset[str]:
    """The columns that pandas wrote as the index of a frame."""
    try:
        columns = json.loads(metadata.get(b"pandas", b"{}")).get("index_columns", [])
        return frozenset(column for column in columns if isinstance(column, str))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return frozenset()  # Nothing of pandas: all columns may be features.


def _moments(values: npt.NDArray[np.float64]) -> Moments:
    """Mean and standard deviation; an infinite deviation if constant, so that it becomes 0."""
    deviation = float(values.std())
    constant = values.min() == values.max() or not deviation
    return float(values.mean()), np.inf if constant else deviation


class Table:
    """A Parquet file.

    Args:
        path: the file.

    Raises:
        DataError: the file is missing, a folder, damaged or empty, or two columns share a name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Imported only here: most experiments read no such file.
        self._pyarrow = importlib.import_module("pyarrow")
        self._parquet = importlib.import_module("pyarrow.parquet")
        if not path.is_file():
            got = "is a folder" if path.is_dir() else "no such file"
            raise DataError(f"{path.absolute()}: {got}, a Parquet file is needed")
        with self._open() as file:
            self.rows: int = file.metadata.num_rows
            self._types = {field.name: field.type for field in file.schema_arrow}
            self._indices = _index_columns(file.schema_arrow.metadata or {})
            columns = len(file.schema_arrow)
        if not self.rows:
            raise DataError(f"{path}: must hold at least one row, got none")
        if len(self._types) != columns:
            raise DataError(f"{path}: columns must have names of their own, got one twice")

    def numeric(self) -> list[str]:
        """The names of the columns of numbers, in the file's order; not those of pandas' index."""
        return [
            name
            for name, type_ in self._types.items()
            if self._is_number(type_) and name not in self._indices and not INDEX.fullmatch(name)
        ]

    def moments(self, columns: list[str], rows: npt.NDArray[np.bool_]) -> list[Moments]:
        """Mean and standard deviation of each column over some rows, at least one.

        Raises:
            DataError: as `numbers`.
        """
        return [_moments(self._doubles(name)[rows]) for name in columns]

    def numbers(self, columns: list[str], scales: list[Moments] | None = None) -> Floats:
        """The columns as one array, shape (rows, columns): (value - mean) / deviation.

        In float64 up to the end: large numbers that lie close together keep their differences.

        Args:
            columns: their names.
            scales: mean and deviation of each column; None leaves the values as they are.

        Raises:
            DataError: a column is missing or holds no numbers, or a value is empty or not finite.
        """
        x = np.empty((self.rows, len(columns)), np.float32)
        with np.errstate(over="ignore"):  # What becomes infinite by its scale is refused later.
            for j, name in enumerate(columns):
                mean, deviation = scales[j] if scales else (0.0, 1.0)
                x[:, j] = (self._doubles(name) - mean) / deviation
        return x

    def _doubles(self, name: str) -> npt.NDArray[np.float64]:
        """A column of numbers, none beyond float32."""
        if not self._is_number(self._type(name)):
            raise self._must(name, "hold numbers", self._types[name])
        with self._open() as file:
            values: npt.NDArray[np.float64] = self._column(file, name).to_numpy().astype(np.float64)
        fits = np.abs(values) <= np.finfo(np.float32).max
        if not fits.all():
            got = f"NaN or one that is too large in row {int(np.argmin(fits))}"
            raise self._must(name, "hold finite float32 values", got)
        return values

    def keys(self, name: str) -> Integers | list[str]:
        """A column of whole numbers, or of texts.

        Raises:
            DataError: the column is missing or holds something else, or a value is empty.
        """
        types, type_ = self._pyarrow.types, self._type(name)
        value_type = type_.value_type if types.is_dictionary(type_) else type_
        with self._open() as file:
            if types.is_integer(type_):
                integers = self._column(file, name).to_numpy()
                if integers.max() > np.iinfo(np.int64).max:
                    raise self._must(name, "hold integers below 2^63", integers.max())
                whole: Integers = integers.astype(np.int64)
                return whole
            if types.is_string(value_type) or types.is_large_string(value_type):
                texts: list[str] = self._column(file, name).to_pylist()
                return texts
        raise self._must(name, "hold whole numbers or texts", type_)

    def _open(self) -> Any:
        try:
            return self._parquet.ParquetFile(self.path)
        except (OSError, ValueError, OverflowError, self._pyarrow.ArrowException) as error:
            raise self._unreadable(error) from error

    def _column(self, file: Any, name: str) -> Any:
        try:
            # By name: the column of a struct may be read with it.
            column = file.read(columns=[name])[name]
            column.validate(full=True)
        except (OSError, ValueError, OverflowError, self._pyarrow.ArrowException) as error:
            raise self._unreadable(error) from error
        if len(column) != self.rows:
            raise self._must(name, f"have {self.rows} rows", len(column))
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy()))
            raise self._must(name, "hold a value in each row", f"none in row {row}")
        return column

    def _type(self, name: str) -> Any:
        if name not in self._types:
            raise DataError(f"{self.path}: must have a column {name!r}, got {list(self._types)}")
        return self._types[name]

    def _is_number(self, type_: Any) -> bool:
        types = self._pyarrow.types
        return bool(types.is_integer(type_) or types.is_floating(type_) or types.is_boolean(type_))

    def _must(self, name: str, rule: str, got: object) -> DataError:
        return DataError(f"{self.path}: column {name!r} must {rule}, got {got}")

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(
            f"{self.path}: must be a readable Parquet file, got {type(error).__name__}: {error}"
        )
