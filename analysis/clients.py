"""Figures over clients, from the largest table: a run at a time, and only the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from analysis.load import LoadError, Results, each_run, holds, run_ids

ACCURACY = "local_test_accuracy"
"""On a client's own test split."""

Doubles = npt.NDArray[np.float64]


def jain(values: Doubles) -> float:
    """Jain's index (sum x)^2 / (n sum x^2): 1 if all are equal, 1/n if one has everything; NaN of none.

    References:
        Jain, Chiu, Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984.
    """
    squares = float(np.square(values).sum())
    return float(values.sum()) ** 2 / (len(values) * squares) if squares > 0 else np.nan


def by_round(
    results: Results, column: str = ACCURACY, runs: Iterable[str] | None = None
) -> pd.DataFrame:
    """A summary of each round over the clients of which a column is known.

    Reads a run at a time: memory is that of one run's column.

    Args:
        results: a results folder, or several.
        column: a column of numbers of table clients.
        runs: the ids of the runs, or all.

    Returns:
        A row a run and round, with the number of clients, mean, std (n in the denominator), p10
        (10th percentile), worst (least) and jain.

    Raises:
        LoadError: see `load`; or the column is no number.
    """
    parts = []
    for run_id, rows in each_run(results, "clients", ["round", column], runs, _known(column)):
        kind = rows.schema.field(column).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise LoadError(f"column must be a number, got {column!r} of type {kind}")
        parts.append(_summaries(rows, column).assign(run_id=run_id))
    table = pd.concat(parts, ignore_index=True)
    return table[["run_id", *(name for name in table.columns if name != "run_id")]]


def _known(column: str) -> pc.Expression:
    return pc.field(column).is_valid()


def _summaries(rows: pa.Table, column: str) -> pd.DataFrame:
    """One row a round; moments by Arrow's hash aggregation, the percentile from sorted values."""
    squares = pc.multiply(rows[column].cast(pa.float64()), rows[column].cast(pa.float64()))
    grouped = (
        rows.append_column("squares", squares)
        .group_by("round")
        .aggregate(
            [(column, of) for of in ("count", "mean", "stddev", "min", "sum")]
            + [("squares", "sum")]
        )
        .sort_by("round")
    )
    count, total, square = (
        grouped[name].to_numpy() for name in (f"{column}_count", f"{column}_sum", "squares_sum")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        fairness = np.where(square > 0, total**2 / (count * square), np.nan)
    return pd.DataFrame(
        {
            "round": grouped["round"].to_numpy(),
            "clients": count,
            "mean": grouped[f"{column}_mean"].to_numpy(),
            "std": grouped[f"{column}_stddev"].to_numpy(),
            "p10": _percentiles(rows["round"].to_numpy(), rows[column].to_numpy(), 0.1),
            "worst": grouped[f"{column}_min"].to_numpy(),
            "jain": fairness,
        }
    )


def _percentiles(rounds: npt.NDArray[np.int32], values: Doubles, share: float) -> Doubles:
    """Of each round in ascending order, interpolated between the two nearest values."""
    if (np.diff(rounds) < 0).any():  # Rows come in the order of their rounds; sorting all is slow.
        order = np.argsort(rounds, kind="stable")
        rounds, values = rounds[order], values[order]
    _, starts = np.unique(rounds, return_index=True)
    parts = np.split(values, starts[1:])
    return np.array([np.percentile(part, 100 * share) for part in parts], np.float64)


def final(
    results: Results, rounds: pd.DataFrame, column: str = ACCURACY, known: str = ""
) -> pd.DataFrame:
    """Each client's value in the last round in which its run was evaluated.

    Args:
        results: a results folder, or several.
        rounds: rows of table rounds, with run_id, round and the column `known`.
        column: of table clients.
        known: the column of rounds that tells which ones were evaluated.

    Returns:
        Columns run_id, client and `column`; without rows where nobody was evaluated.
    """
    evaluated = rounds.dropna(subset=[known]).groupby("run_id")["round"].max()
    where = {
        run_id: (pc.field("round") == int(evaluated[run_id])) & _known(column)
        for run_id in run_ids(results, "clients")
        if run_id in evaluated
    }
    parts = [pd.DataFrame(columns=["run_id", "client", column])]
    if where:
        for run_id, rows in each_run(results, "clients", ["client", column], where, where):
            parts.append(rows.to_pandas().assign(run_id=run_id))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def totals(results: Results, columns: Sequence[str]) -> pd.DataFrame:
    """Sums over all rounds and clients of a run: a row a run; NaN where a column is never known.

    `rounds` is how many rounds there are rows of.
    """
    rows = []
    if holds(results, "clients"):
        for run_id, part in each_run(results, "clients", ["round", *columns]):
            sums = {name: pc.sum(part[name], min_count=1).as_py() for name in columns}
            rows.append(
                {"run_id": run_id, "rounds": pc.count_distinct(part["round"]).as_py(), **sums}
            )
    return pd.DataFrame(rows, columns=["run_id", "rounds", *columns])
