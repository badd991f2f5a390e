from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.errors import ResultsError
from spatl_ray.results import gathered
from spatl_ray.results.columns import build
from spatl_ray.results.gathered import Gathered, check
from spatl_ray.results.schema import file_schema

MakeRow = Callable[..., dict[str, object]]

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, 2**63 - 1, 2**63, -1, 0]),
    st.floats(),
    st.floats(0, 1),
    st.text(),
    st.sampled_from(["accepted", "trained", "lost", "\ud800", "zwölf"]),
    st.sampled_from([np.float64(0.5), np.int32(3), np.bool_(True), np.str_("x"), b"x"]),
    st.just(datetime(2026, 1, 2, tzinfo=UTC)),
    st.just(datetime(2026, 1, 2)),
)


def _refusal(action: Callable[[], object]) -> str | None:
    try:
        action()
    except (ResultsError, UnicodeEncodeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@settings(deadline=None, max_examples=300)
@given(table=st.sampled_from(["rounds", "clients", "layers", "events"]), data=st.data())
def test_rows_are_refused_as_if_they_were_made_columns(table: str, data: st.DataObject) -> None:
    plain = {"int32": 1, "int64": 1, "double": 0.5, "string": "x", "bool": True}
    row: dict[str, object] = {
        field.name: plain.get(str(field.type), datetime(2026, 1, 2, tzinfo=UTC))
        for field in file_schema(table)
        if not field.nullable or data.draw(st.booleans(), label=field.name)
    }
    row |= {field.name: None for field in file_schema(table) if field.name not in row}
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(VALUES)
    rows = [row]
    expected = _refusal(lambda: build(table, rows, "run"))
    assert _refusal(lambda: check(table, rows, "run")) == expected


def test_other_columns_are_refused(make_row: MakeRow) -> None:
    row = make_row("rounds")
    check("rounds", [row, row | {"run_id": "run"}], "run")
    with pytest.raises(ResultsError, match="run_id must be 'run', got 'other'"):
        check("rounds", [row, row | {"run_id": "other"}], "run")
    del row["lr"]
    with pytest.raises(ResultsError, match="every row needs column 'lr'"):
        check("rounds", [row], "run")


@pytest.mark.parametrize("size", [1, 3, 10])
def test_all_rows_come_in_their_order_with_their_bits(
    make_row: MakeRow, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(gathered, "ENOUGH", 4)
    rows = [make_row("rounds", round=i, lr=math.pi / (i + 1)) for i in range(30)]
    waiting = Gathered("rounds", "run")
    for first in range(0, 30, size):
        waiting.add(rows[first : first + size])
    assert waiting.columns().equals(build("rounds", rows, "run"))
    assert waiting.columns().num_rows == 30, "they stay until they are written"


def test_a_row_that_changes_afterwards_is_taken_as_it_was(make_row: MakeRow) -> None:
    row = make_row("rounds", round=1)
    waiting = Gathered("rounds", "run")
    waiting.add([row])
    row["round"] = 2
    assert waiting.columns()["round"].to_pylist() == [1]
