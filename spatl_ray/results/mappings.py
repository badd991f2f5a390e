"""Columns of table `runs` that hold JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spatl_ray.errors import ResultsError


def mapping_of(row: Mapping[str, Any], run_id: str, column: str) -> dict[str, Any]:
    """What a column that holds a JSON mapping says.

    Args:
        row: of table `runs`.
        run_id: of the run.
        column: its name, such as `config`.

    Raises:
        ResultsError: the column is missing, or holds something else.
    """
    text = row.get(column)
    try:
        found = json.loads(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError) as error:
        raise _no_mapping(run_id, column, text, f": {error}") from error
    if not isinstance(found, dict):
        raise _no_mapping(run_id, column, text)
    return found


def text_of(row: Mapping[str, Any], run_id: str, column: str) -> str:
    """What a column of text says.

    Args:
        row, run_id, column: as for `mapping_of`.

    Raises:
        ResultsError: the column is missing, or empty.
    """
    text = row.get(column)
    if not isinstance(text, str):
        raise ResultsError(
            f"column {column!r} of run {run_id!r} in table runs must hold text, got {text!r}"
        )
    return text


def _no_mapping(run_id: str, column: str, text: object, why: str = "") -> ResultsError:
    return ResultsError(
        f"column {column!r} of run {run_id!r} in table runs must hold a JSON mapping, got "
        f"{text!r:.60}{why}: it is damaged"
    )
