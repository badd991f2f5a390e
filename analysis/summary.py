"""One row a run: what it reached, what it cost, and how that compares with FedAvg."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.aims import Target, aims
from analysis.formats import UNKNOWN
from analysis.load import Results, load
from analysis.methods import FINISHED, INCOMPLETE, SETTING, judged
from analysis.metrics import (
    BYTES,
    CLIENTS,
    GLOBAL,
    MEGABYTE,
    OVER,
    ROUND_COLUMNS,
    SIMULATED,
    is_lower_better,
    own_split,
)

NOT_REACHED = "not reached"
NO_FEDAVG = "no FedAvg run"

TO_TARGET = ["rounds_to_target", "MB_to_target", "simulated_seconds_to_target"]
_TIMES = ["simulated_seconds", "simulated_seconds_to_target"]
_HEAD = ["run_id", "status", "algorithm", "dataset", "partition", "model", "seed"]
_NUMBERS = [
    *("rounds_done", "own_test_clients"),
    *("final_own_test_accuracy", "final_global_test_accuracy"),
    *("best_own_test_accuracy", "best_global_test_accuracy"),
    *("MB_up", "MB_down", "seconds", "simulated_seconds"),
]


def summary(results: Results, target: Target = None, metric: str | None = None) -> pd.DataFrame:
    """One row a run of a results folder, or of several: see `summarise`.

    Raises:
        LoadError: the folder cannot be read, or has no rounds or no such metric.
    """
    rounds = load_rounds(results, metric)
    runs = judged(load(results, "runs", [*_HEAD, "clients", "sample_ratio", "rounds"]), rounds)
    return summarise(runs, rounds, target, metric)


def load_rounds(results: Results, metric: str | None = None) -> pd.DataFrame:
    """The rounds of all runs, with the columns that tables and pictures need.

    Raises:
        LoadError: there are none, or the metric is none of `metrics.BETTER`.
    """
    if metric:
        is_lower_better(metric)
    columns = list(dict.fromkeys([*ROUND_COLUMNS, *([metric] if metric else [])]))
    return load(results, "rounds", columns)


def summarise(
    runs: pd.DataFrame,
    rounds: pd.DataFrame,
    target: Target = None,
    metric: str | None = None,
) -> pd.DataFrame:
    """One row a run: accuracies, bytes, seconds, cost to a target, bytes against FedAvg's.

    Final and best values are over the evaluated rounds. Own-split accuracies are means over
    `own_test_mean_over`, which are `own_test_clients` after the last round. Megabytes are
    10^6 bytes. Interrupted, failed and running runs appear with their status and what they have so
    far; of incomplete ones no total is known.
    `bytes_to_fedavg` is the run's bytes, up and down, over those of the finished FedAvg run of the
    same data set, partition, model, seed, number of clients and sample ratio. Seconds are of this
    machine; simulated seconds are of the clients' devices, and left out if no run has devices.

    Args:
        runs: rows of the table runs, as `methods.judged` gives them.
        rounds: rows of the table rounds.
        target: the value of `metric` to reach, what to be like, or None: see `aims.aims`.
        metric: one of `metrics.BETTER`; None: the own-split accuracy.
    """
    own = own_split(rounds)
    return in_words(with_figures(runs, rounds, target, metric or own, own), own)


def with_figures(
    runs: pd.DataFrame, rounds: pd.DataFrame, target: Target, metric: str, own: str
) -> pd.DataFrame:
    """The runs with their figures as columns of numbers, and `target` in words.

    Args:
        runs, rounds, target, metric: as for `summarise`.
        own: the column of the own-split accuracy.
    """
    ordered = rounds.sort_values(["run_id", "round"])
    aim = aims(runs, rounds, metric, target).set_axis(runs["run_id"])
    parts = [_totals(ordered, own), _to_target(ordered, metric, aim)]
    figures = pd.concat(parts, axis=1).reindex(runs["run_id"]).astype(float)
    lacking = (runs["status"] == INCOMPLETE).to_numpy()
    figures = figures.mask(lacking[:, None] & (figures.columns != "rounds_done"))
    figures["rounds_done"] = figures["rounds_done"].fillna(0.0)
    begun = ["MB_up", "MB_down", "seconds"]
    figures.loc[~lacking, begun] = figures.loc[~lacking, begun].fillna(0.0)
    figures["target"] = [_target_text(metric, value) for value in aim]
    return runs.merge(figures.rename_axis("run_id").reset_index(), on="run_id")


def _totals(ordered: pd.DataFrame, own: str) -> pd.DataFrame:
    """What each run reached and cost in all its rounds; "last" is the last that is known."""
    by = ordered.groupby("run_id")
    columns = {
        "rounds_done": by["round"].nunique(),
        "own_test_clients": by[CLIENTS[own]].last(),
        "final_own_test_accuracy": by[own].last(),
        "final_global_test_accuracy": by[GLOBAL].last(),
        "best_own_test_accuracy": by[own].max(),
        "best_global_test_accuracy": by[GLOBAL].max(),
        "MB_up": by[BYTES[0]].max() / MEGABYTE,
        "MB_down": by[BYTES[1]].max() / MEGABYTE,
        "seconds": by["seconds_total"].sum(),
        "simulated_seconds": by[SIMULATED].max(),
    }
    return pd.DataFrame(columns)


def _to_target(ordered: pd.DataFrame, metric: str, aim: pd.Series) -> pd.DataFrame:
    """Rounds done, megabytes up and down, simulated seconds when each run first was at its target."""
    values, aimed = ordered[metric], ordered["run_id"].map(aim)
    is_there = values <= aimed if is_lower_better(metric) else values >= aimed
    first = ordered[is_there].drop_duplicates("run_id").set_index("run_id")
    columns = (first["round"] + 1, first[BYTES].sum(axis=1) / MEGABYTE, first[SIMULATED])
    return pd.DataFrame(dict(zip(TO_TARGET, columns, strict=True)))


def _target_text(metric: str, target: float) -> str:
    sign = "<=" if is_lower_better(metric) else ">="
    return UNKNOWN if math.isnan(target) else f"{metric} {sign} {target:.4g}"


def in_words(runs: pd.DataFrame, own: str) -> pd.DataFrame:
    """The table of runs, from what `with_figures` gives: a text where there is no number."""
    table = runs[_HEAD].assign(rounds=runs["rounds_done"].astype(int), own_test_mean_over=OVER[own])
    table = table.join(runs[[*_NUMBERS[1:], "target", *TO_TARGET]])
    missed = (runs["status"] != INCOMPLETE) & runs["rounds_to_target"].isna()
    for name in TO_TARGET:
        table[name] = [
            NOT_REACHED if is_missed else int(v) if name == TO_TARGET[0] and v == v else v
            for v, is_missed in zip(runs[name], missed, strict=True)
        ]
    table["bytes_to_fedavg"] = _to_fedavg(runs)
    return table if runs["simulated_seconds"].notna().any() else table.drop(columns=_TIMES)


def _to_fedavg(runs: pd.DataFrame) -> list[float | str]:
    """Each run's bytes over those of the FedAvg run of its setting and seed, or why there is no ratio."""
    spent = runs.assign(MB=runs["MB_up"] + runs["MB_down"]).to_dict("records")
    peers: dict[tuple[object, ...], list[Mapping[Hashable, Any]]] = {}
    for run in spent:
        if run["algorithm"] == "fedavg":
            peers.setdefault(_place(run), []).append(run)
    return [
        _ratio(run, [run] if run["algorithm"] == "fedavg" else peers.get(_place(run), []))
        for run in spent
    ]


def _place(run: Mapping[Hashable, Any]) -> tuple[object, ...]:
    return tuple(run[name] for name in (*SETTING, "seed"))


def _ratio(run: Mapping[Hashable, Any], peers: Sequence[Mapping[Hashable, Any]]) -> float | str:
    done = [peer for peer in peers if peer is run or peer["status"] == FINISHED]
    if not done:
        return "FedAvg has not finished" if peers else NO_FEDAVG
    if len(done) > 1:
        return f"{len(done)} FedAvg runs"
    if done[0]["MB"] == 0:
        return "FedAvg sent nothing"
    return float(run["MB"] / done[0]["MB"])
