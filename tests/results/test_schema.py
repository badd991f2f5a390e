from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from spatl_ray.errors import ResultsError
from spatl_ray.results.schema import (
    CHOICES,
    KEYS,
    SCHEMA_VERSION,
    TABLES,
    file_schema,
    schema,
    unmeasured,
)


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_unit_and_says_whether_it_is_measured(table: str) -> None:
    for field in TABLES[table]:
        assert field.metadata[b"unit"]
        assert field.metadata[b"measured"] in (b"true", b"false")


@pytest.mark.parametrize("table", TABLES)
def test_tables_state_the_schema_version_and_begin_with_the_run(table: str) -> None:
    assert TABLES[table].metadata == {b"spatl_schema_version": str(SCHEMA_VERSION).encode()}
    assert TABLES[table].names[0] == "run_id"
    assert file_schema(table).names == TABLES[table].names[1:]
    assert file_schema(table).metadata == TABLES[table].metadata


@pytest.mark.parametrize("table", TABLES)
def test_units_agree_with_names(table: str) -> None:
    for field in TABLES[table]:
        unit = field.metadata[b"unit"]
        assert (unit == b"bytes") == field.name.startswith("bytes"), field.name
        times = field.name.startswith(("seconds", "simulated_seconds"))
        assert (unit == b"seconds") == times, field.name
        if "accuracy" in field.name:
            assert unit == b"fraction"
            assert field.nullable


@pytest.mark.parametrize("table", TABLES)
def test_whatever_a_clock_or_a_machine_decides_is_exempt_from_comparison(table: str) -> None:
    compared = set(unmeasured(table))
    for field in TABLES[table]:
        if pa.types.is_timestamp(field.type) or field.name.startswith("seconds"):
            assert field.name not in compared
    exempt = {"config", "versions", "hardware", "fingerprint", "actor"}
    assert not compared & exempt
    assert {"run_id", *KEYS.get(table, ())} <= compared


def test_unmeasured_layers_are_all_of_them_in_order() -> None:
    assert unmeasured("layers") == TABLES["layers"].names


def test_choices_are_of_columns_that_exist() -> None:
    for table, column in CHOICES:
        assert TABLES[table].field(column).type == pa.string()


@pytest.mark.parametrize("ask", [schema, file_schema, unmeasured])
def test_unknown_table_is_refused_by_name(
    ask: Callable[[str], object],
) -> None:
    with pytest.raises(ResultsError, match=r"one of runs, rounds, .* got 'epochs'"):
        ask("epochs")
