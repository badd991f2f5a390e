"""Rows that wait for a flush: checked as they come, made columns many at once.

For a short round's few rows Arrow takes longer than all else that the driver does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from spatl_ray.results.columns import Row, build, limits
from spatl_ray.results.schema import CHOICES, file_schema

ENOUGH = 1000
"""Rows that are made columns before the flush: as columns they take less memory."""

_PLAIN = {"int32": int, "int64": int, "double": float, "string": str, "bool": bool}
"""The type that the values of a column nearly always have."""

_LARGEST = {"int32": 2**31 - 1, "int64": 2**63 - 1}


def check(table: str, rows: Sequence[Row], run_id: str) -> None:
    """Refuse rows that could not be made columns.

    Args:
        table, rows, run_id: as for `columns.build`, which is asked about all but plain values.

    Raises:
        ResultsError: as `columns.build` does.
    """
    if not all(_surely_fits(table, row) for row in rows):
        build(table, rows, run_id)


class Gathered:
    """Checked rows of a table, in their order.

    Args:
        table: which table.
        run_id: the run.
    """

    def __init__(self, table: str, run_id: str) -> None:
        self._table, self._run_id = table, run_id
        self._built: list[pa.Table] = []
        self._rows: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Take rows; the caller may change them afterwards."""
        self._rows += [dict(row) for row in rows]
        if len(self._rows) >= ENOUGH:
            self._built, self._rows = self._parts(), []

    def columns(self) -> pa.Table:
        """All of them; they stay here, as a flush may be broken off."""
        return pa.concat_tables(self._parts())

    def _parts(self) -> list[pa.Table]:
        return [*self._built, build(self._table, self._rows, self._run_id)]


@dataclass(frozen=True)
class _Rule:
    """When a value surely fits a column: it is None or of this very type, in range and a choice.

    Strings without choices are to be ASCII: not every other one can be encoded.
    """

    name: str
    nullable: bool
    kind: Any
    most: float | None
    choices: frozenset[str]


@cache
def _rules(table: str) -> tuple[frozenset[str], tuple[_Rule, ...]]:
    """The names of all columns, and when a value fits each."""
    rules = []
    for field, most in limits(table):
        kind, choices = str(field.type), CHOICES.get((table, field.name), frozenset())
        if most is not None:
            most = min(most, _LARGEST.get(kind, most))
        rules.append(_Rule(field.name, field.nullable, _PLAIN.get(kind), most, choices))
    return frozenset(file_schema(table).names), tuple(rules)


def _surely_fits(table: str, row: Row) -> bool:
    """Whether a row has just the table's columns, and in each what fits; False leaves it open."""
    names, rules = _rules(table)
    return row.keys() == names and all(_fits(rule, row[rule.name]) for rule in rules)


def _fits(rule: _Rule, value: Any) -> bool:
    if value is None:
        return rule.nullable
    if type(value) is not rule.kind:
        return False
    if rule.kind is str:
        return value in rule.choices if rule.choices else value.isascii()
    return rule.most is None or 0 <= value <= rule.most
