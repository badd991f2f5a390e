"""One row a run: what it reached, what it cost, and how that compares with FedAvg."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from analysis.formats import UNKNOWN
from analysis.load import LoadError, Results, load
from analysis.metrics import (
    BYTES,
    CLIENTS,
    GLOBAL,
    MEGABYTE,
    OVER,
    OWN,
    PANEL,
    SIMULATED,
    is_lower_better,
    own_split,
)

NOT_REACHED = "not reached"
NO_FEDAVG = "no FedAvg run"

_SETTING = ["dataset", "partition", "model", "seed", "clients", "sample_ratio", "rounds"]
_ACCURACIES = [OWN, PANEL, GLOBAL, *CLIENTS.values()]
ROUND_COLUMNS = ["run_id", "round", *BYTES, SIMULATED, "seconds_total", *_ACCURACIES]
_TIMES = ["simulated_seconds", "simulated_seconds_to_target"]
_SHOWN = ["run_id", "status", "algorithm", "dataset", "partition", "model", "seed"]


def summary(
    results: Results, target: float | None = None, metric: str | None = None
) -> pd.DataFrame:
    """One row a run of a results folder, or of several: see `summarise`.

    Raises:
        LoadError: the folder cannot be read, or has no rounds or no such number.
    """
    runs = load(results, "runs", [*_SHOWN, "clients", "sample_ratio", "rounds"])
    return summarise(runs, load_rounds(results, metric), target, metric)


def load_rounds(results: Results, metric: str | None = None) -> pd.DataFrame:
    """The rounds of all runs, with the columns that `summarise` needs.

    Raises:
        LoadError: there are none, or the metric is no column of theirs, or no number.
    """
    columns = list(dict.fromkeys([*ROUND_COLUMNS, *([metric] if metric else [])]))
    rounds = load(results, "rounds", columns)
    if metric and not pd.api.types.is_numeric_dtype(rounds[metric]):
        raise LoadError(f"metric must be a number, got column {metric!r}")
    return rounds


def summarise(
    runs: pd.DataFrame,
    rounds: pd.DataFrame,
    target: float | None = None,
    metric: str | None = None,
    own: str | None = None,
) -> pd.DataFrame:
    """One row a run: accuracies, bytes, seconds, cost to a target, bytes against FedAvg's.

    Final and best values are over the evaluated rounds. Own-split accuracies are means over
    `own_test_mean_over`, which are `own_test_clients` after the last round. Megabytes are
    10^6 bytes. Interrupted, failed and running runs appear with their status and what they have so
    far.
    `bytes_to_fedavg` is the run's bytes, up and down, over those of the FedAvg run of the same
    data set, partition, model, seed, number of clients and sample ratio. Seconds are of this
    machine; simulated seconds are of the clients' devices, and left out if no run has devices.

    Args:
        runs: rows of the table runs.
        rounds: rows of the table rounds.
        target: the value of `metric` to reach, or None: the worst of the runs' best values, the
            hardest target that every evaluated run reaches.
        metric: a column of rounds, larger being better but for losses; None: the own-split accuracy.
        own: the column of the own-split accuracy, or None: see `own_split`.
    """
    own = own or own_split(rounds)
    metric = metric or own
    groups = {run_id: frame.sort_values("round") for run_id, frame in rounds.groupby("run_id")}
    nothing = rounds.iloc[:0]
    if target is None:
        target = common_target(rounds, metric)
    totals = {run_id: _total_bytes(groups.get(run_id, nothing)) for run_id in runs["run_id"]}
    rows = []
    for run in runs.to_dict("records"):
        row = {name: run[name] for name in _SHOWN}
        row |= _figures(groups.get(run["run_id"], nothing), own, metric, target)
        row["bytes_to_fedavg"] = _ratio(run["run_id"], runs, totals)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table if rounds[SIMULATED].notna().any() else table.drop(columns=_TIMES)


def common_target(rounds: pd.DataFrame, metric: str) -> float:
    """The worst of the runs' best values."""
    values = rounds.groupby("run_id")[metric]
    return float(values.min().max() if is_lower_better(metric) else values.max().min())


def _figures(frame: pd.DataFrame, own: str, metric: str, target: float) -> dict[str, object]:
    """What a run reached and cost, from its rounds in order."""
    up, down = (float(frame[name].max()) / MEGABYTE if len(frame) else 0.0 for name in BYTES)
    to_target = _to_target(frame, metric, target)
    return {
        "rounds": len(frame),
        "own_test_mean_over": OVER[own],
        "own_test_clients": _final(frame[CLIENTS[own]]),
        "final_own_test_accuracy": _final(frame[own]),
        "final_global_test_accuracy": _final(frame[GLOBAL]),
        "best_own_test_accuracy": frame[own].max(),
        "best_global_test_accuracy": frame[GLOBAL].max(),
        "MB_up": up,
        "MB_down": down,
        "seconds": float(frame["seconds_total"].sum()),
        "simulated_seconds": float(frame[SIMULATED].max()),
        "target": _target_text(metric, target),
        "rounds_to_target": to_target[0],
        "MB_to_target": to_target[1],
        "simulated_seconds_to_target": to_target[2],
    }


def _target_text(metric: str, target: float) -> str:
    sign = "<=" if is_lower_better(metric) else ">="
    return UNKNOWN if math.isnan(target) else f"{metric} {sign} {target:.4g}"


def _to_target(
    frame: pd.DataFrame, metric: str, target: float
) -> tuple[int | str, float | str, float | str]:
    """Rounds done, megabytes up and down, simulated seconds when the metric first was at the target."""
    values = frame[metric]
    reached = (values <= target if is_lower_better(metric) else values >= target).to_numpy()
    if not reached.any():
        return NOT_REACHED, NOT_REACHED, NOT_REACHED
    first = int(reached.argmax())
    megabytes = float(frame[BYTES].iloc[first].sum()) / MEGABYTE
    return first + 1, megabytes, float(frame[SIMULATED].iloc[first])


def _final(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.iloc[-1]) if len(known) else math.nan


def _total_bytes(frame: pd.DataFrame) -> float:
    return float(frame[BYTES].max().sum()) if len(frame) else 0.0


def _ratio(run_id: str, runs: pd.DataFrame, totals: Mapping[str, float]) -> float | str:
    """The run's bytes over those of the FedAvg run of its setting, or why there is no ratio."""
    run = runs[runs["run_id"] == run_id].iloc[0]
    if run["algorithm"] == "fedavg":
        peers = [run_id]
    else:
        alike = (runs[_SETTING] == run[_SETTING]).all(axis=1)
        peers = runs.loc[alike & (runs["algorithm"] == "fedavg"), "run_id"].tolist()
    if not peers:
        return NO_FEDAVG
    if len(peers) > 1:
        return f"{len(peers)} FedAvg runs"
    if totals[peers[0]] == 0:
        return "FedAvg sent nothing"
    return totals[run_id] / totals[peers[0]]
