"""Rows to columns, refusing what the schema does not allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from numbers import Integral, Real
from typing import Any

import pyarrow as pa

from spatl_ray.errors import ResultsError
from spatl_ray.results.schema import CHOICES, file_schema

Row = Mapping[str, object]


def build(table: str, rows: Sequence[Row], run_id: str) -> pa.Table:
    """The rows as the Arrow table that goes into a file.

    Args:
        table: which table.
        rows: one mapping a row with every column; run_id may be left out.
        run_id: the run, which the path holds, so that the file need not.

    Raises:
        ResultsError: a column is missing or unknown, or a value is null, of another type, or
            outside of its range where the schema does not allow it.
    """
    wanted = file_schema(table)
    _check_names(table, rows, frozenset(wanted.names), run_id)
    arrays = [
        _column(table, field, most, [row[field.name] for row in rows])
        for field, most in _most(table)
    ]
    return pa.Table.from_arrays(arrays, schema=wanted)


def _check_names(table: str, rows: Sequence[Row], wanted: frozenset[str], run_id: str) -> None:
    for row in rows:
        if row.keys() == wanted:
            continue
        if missing := sorted(wanted - row.keys()):
            raise ResultsError(f"{table}: every row needs column {missing[0]!r}, got {_short(row)}")
        if extra := sorted(row.keys() - wanted - {"run_id"}):
            raise ResultsError(f"{table}: there is no column {extra[0]!r}, got {_short(row)}")
        if row["run_id"] != run_id:
            raise ResultsError(f"{table}: run_id must be {run_id!r}, got {row['run_id']!r}")


@cache
def _most(table: str) -> tuple[tuple[pa.Field, float | None], ...]:
    """Each column with the largest value that it may hold, beside a least one of 0; None for any.

    Fractions lie in [0, 1] (neither percent nor NaN does), integers at 0 or above.
    """

    def most(field: pa.Field) -> float | None:
        if field.metadata[b"unit"] == b"fraction":
            return 1.0
        return math.inf if pa.types.is_integer(field.type) else None

    return tuple((field, most(field)) for field in file_schema(table))


def _column(table: str, field: pa.Field, most: float | None, values: list[Any]) -> pa.Array:
    kinds: set[Any] = {type(value) for value in values}
    for kind in kinds:
        if not _fits(kind, field.type):
            bad = next(value for value in values if type(value) is kind)
            raise _refusal(table, field, bad, f"be of type {field.type}")
    try:
        array = pa.array(values, field.type)
    except (pa.ArrowException, OverflowError) as error:
        raise _refusal(table, field, _first_bad(values, field.type), str(error)) from error
    _check_values(table, field, values, array)
    if most is not None:
        _check_range(table, field, most, values)
    return array


@cache
def _fits(kind: Any, wanted: pa.DataType) -> bool:
    """Whether values of a Python type belong into a column; Arrow alone would cast some."""
    if kind is type(None):
        return True
    if pa.types.is_integer(wanted):
        return kind is not bool and issubclass(kind, Integral)
    if pa.types.is_floating(wanted):
        return kind is not bool and issubclass(kind, Real)
    if pa.types.is_timestamp(wanted):
        return issubclass(kind, datetime)
    return not pa.types.is_string(wanted) or issubclass(kind, str)


def _first_bad(values: list[Any], wanted: pa.DataType) -> object:
    for value in values:
        try:
            pa.array([value], wanted)
        except (pa.ArrowException, OverflowError):
            return value
    return values


def _check_values(table: str, field: pa.Field, values: list[Any], array: pa.Array) -> None:
    if not field.nullable and array.null_count:
        raise _refusal(table, field, None, "not be null")
    if pa.types.is_timestamp(field.type):
        for value in values:
            if value is not None and value.tzinfo is None:
                raise _refusal(table, field, value, "have a time zone")
    if choices := CHOICES.get((table, field.name)):
        for value in set(values) - choices - {None}:
            raise _refusal(table, field, value, f"be one of {', '.join(sorted(choices))}")


def _check_range(table: str, field: pa.Field, most: float, values: list[Any]) -> None:
    """Not by Arrow's compute functions: for a round's few rows they cost more than all the rest."""
    for value in values:
        if value is not None and not 0 <= value <= most:
            rule = "be in [0, 1]" if most == 1 else "be at least 0"
            raise _refusal(table, field, value, rule)


def _refusal(table: str, field: pa.Field, value: object, rule: str) -> ResultsError:
    value = value.item() if hasattr(value, "item") else value  # a NumPy scalar, as Python has it
    return ResultsError(f"{table}: column {field.name!r} must {rule}, got {_short(value)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
