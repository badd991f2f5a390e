"""Columns of a Parquet file as arrays, one column in memory at a time."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from spatl_ray.data.dataset import Floats, Integers
from spatl_ray.errors import DataError


class Table:
    """A Parquet file.

    Args:
        path: the file.

    Raises:
        DataError: the file is missing, damaged or empty, or two columns share a name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Imported only here: most experiments read no such file.
        self._pyarrow = importlib.import_module("pyarrow")
        self._parquet = importlib.import_module("pyarrow.parquet")
        if not path.is_file():
            raise DataError(f"{path.absolute()}: no such file, a Parquet file is needed")
        with self._open() as file:
            self.rows: int = file.metadata.num_rows
            self._types = {field.name: field.type for field in file.schema_arrow}
            columns = len(file.schema_arrow)
        if not self.rows:
            raise DataError(f"{path}: must hold at least one row, got none")
        if len(self._types) != columns:
            raise DataError(f"{path}: columns must have names of their own, got one twice")

    def numeric(self) -> list[str]:
        """The names of the columns of numbers, in the file's order."""
        return [name for name, type_ in self._types.items() if self._is_number(type_)]

    def numbers(self, columns: list[str]) -> Floats:
        """The columns as one array, shape (rows, columns).

        Raises:
            DataError: a column is missing or holds no numbers, or a value is empty or not finite.
        """
        for name in columns:
            if not self._is_number(self._type(name)):
                raise self._must(name, "hold numbers", self._types[name])
        x = np.empty((self.rows, len(columns)), np.float32)
        with self._open() as file, np.errstate(over="ignore"):
            for j, name in enumerate(columns):
                x[:, j] = self._column(file, name).to_numpy()
                finite = np.isfinite(x[:, j])
                if not finite.all():
                    row = int(np.argmin(finite))
                    got = f"NaN or one that is too large in row {row}"
                    raise self._must(name, "hold finite float32 values", got)
        return x

    def keys(self, name: str) -> Integers | list[str]:
        """A column of whole numbers, or of texts.

        Raises:
            DataError: the column is missing or holds something else, or a value is empty.
        """
        types, type_ = self._pyarrow.types, self._type(name)
        value_type = type_.value_type if types.is_dictionary(type_) else type_
        with self._open() as file:
            if types.is_integer(type_):
                integers: Integers = self._column(file, name).to_numpy().astype(np.int64)
                return integers
            if types.is_string(value_type) or types.is_large_string(value_type):
                texts: list[str] = self._column(file, name).to_pylist()
                return texts
        raise self._must(name, "hold whole numbers or texts", type_)

    def _open(self) -> Any:
        try:
            return self._parquet.ParquetFile(self.path)
        except (OSError, self._pyarrow.ArrowException) as error:
            raise self._unreadable(error) from error

    def _column(self, file: Any, name: str) -> Any:
        try:
            column = file.read(columns=[name]).column(0)
        except (OSError, self._pyarrow.ArrowException) as error:
            raise self._unreadable(error) from error
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
