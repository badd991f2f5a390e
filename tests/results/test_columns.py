from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.errors import ResultsError
from spatl_ray.results.columns import build
from spatl_ray.results.schema import file_schema

MakeRow = Callable[..., dict[str, object]]


def test_missing_and_unknown_columns_are_named(make_row: MakeRow) -> None:
    row = make_row("rounds")
    del row["lr"]
    with pytest.raises(ResultsError, match="rounds: every row needs column 'lr'"):
        build("rounds", [make_row("rounds"), row], "run")
    with pytest.raises(ResultsError, match="rounds: there is no column 'colour'"):
        build("rounds", [make_row("rounds", colour="red")], "run")


@pytest.mark.parametrize(
    ("table", "column", "value", "rule"),
    [
        ("rounds", "round", 1.0, "int32"),
        ("rounds", "round", True, "int32"),
        ("rounds", "round", None, "not be null"),
        ("rounds", "round", 2**31, "too large"),
        ("rounds", "bytes_up", -1, "at least 0"),
        ("rounds", "global_test_accuracy", 75.0, r"in \[0, 1\]"),
        ("rounds", "global_test_accuracy", math.nan, r"in \[0, 1\]"),
        ("rounds", "train_loss", "low", "double"),
        ("rounds", "train_loss", True, "double"),
        ("clients", "participated", 1, "boolean"),
        ("clients", "status", "lost", "one of accepted, clipped, failed, late, rejected"),
        ("clients", "actor", 3, "string"),
        ("layers", "layer", b"conv1", "string"),
        ("events", "time", "noon", "timestamp"),
        ("events", "time", datetime(2026, 1, 1), "time zone"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_table_and_column(
    make_row: MakeRow, table: str, column: str, value: object, rule: str
) -> None:
    rows = [make_row(table), make_row(table, **{column: value})]
    with pytest.raises(ResultsError, match=rule) as caught:
        build(table, rows, "run")
    assert str(caught.value).startswith(f"{table}: column {column!r} must ")
    assert str(caught.value).endswith(f"got {value!r}")


def test_run_id_may_be_given_but_not_of_another_run(make_row: MakeRow) -> None:
    own = build("rounds", [make_row("rounds", run_id="run")], "run")
    assert own.column_names == file_schema("rounds").names
    with pytest.raises(ResultsError, match="run_id must be 'run', got 'other'"):
        build("rounds", [make_row("rounds", run_id="other")], "run")


def test_no_rows_make_a_table_of_the_schema() -> None:
    assert build("events", [], "run").schema.equals(file_schema("events"), check_metadata=True)


def test_times_of_other_zones_are_stored_as_the_same_instant(make_row: MakeRow) -> None:
    east = datetime(2026, 1, 2, 14, tzinfo=timezone(timedelta(hours=2)))
    stored = build("events", [make_row("events", time=east)], "run")["time"][0].as_py()
    assert stored == datetime(2026, 1, 2, 12, tzinfo=UTC)


@settings(deadline=None, max_examples=40)
@given(loss=st.floats(width=64), count=st.integers(0, 2**31 - 1), share=st.floats(0, 1))
def test_numbers_keep_their_bits_as_python_or_numpy_scalars(
    loss: float, count: int, share: float
) -> None:
    plain = {"round": count, "lr": loss, "density": share}
    scalars = {"round": np.int64(count), "lr": np.float64(loss), "density": np.float64(share)}
    for values in (plain, scalars):
        row: dict[str, object] = {
            field.name: None if field.nullable else 0 for field in file_schema("rounds")
        }
        stored = build("rounds", [row | values], "run").to_pylist()[0]
        assert stored["round"] == count
        assert np.float64(stored["lr"]).tobytes() == np.float64(loss).tobytes() or math.isnan(loss)
        assert stored["density"] == share
