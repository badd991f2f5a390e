"""Rows that fit the schema."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from spatl_ray.results.schema import file_schema

MakeRow = Callable[..., dict[str, object]]

_DEFAULTS = {"int32": 1, "int64": 1, "double": 0.5, "string": "x", "bool": True}
_WRITTEN_BY_WRITER = ("start", "end", "status", "error")


@pytest.fixture
def make_row() -> MakeRow:
    """A function that makes a row of a table: required columns filled, the others null."""

    def make(table: str, **values: object) -> dict[str, object]:
        row: dict[str, object] = {}
        for field in file_schema(table):
            default = _DEFAULTS.get(str(field.type), datetime(2026, 1, 2, tzinfo=UTC))
            row[field.name] = None if field.nullable else default
        if table == "runs":
            row = {name: row[name] for name in row if name not in _WRITTEN_BY_WRITER}
        return row | values

    return make
