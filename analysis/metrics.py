"""The numbers that runs are compared by: their columns, and what they are called."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from analysis.load import LoadError

OWN = "local_test_accuracy_mean"
"""Over clients that have trained: in part of the clients' rounds, others for every algorithm."""
PANEL = "panel_local_test_accuracy_mean"
"""Over the whole panel, so over the same clients for every algorithm."""
CLIENTS = {OWN: "local_test_clients", PANEL: "panel_clients"}
"""The column with the number of clients behind a mean."""
OVER = {OWN: "clients that have trained", PANEL: "clients of the panel"}
"""Which clients are behind a mean."""
GLOBAL = "global_test_accuracy"
VALIDATION = "local_validation_accuracy_mean"
"""What searches go by: no test data are in it."""
SIMULATED = "simulated_seconds_cumulative"
COSINE = "update_cosine_mean"
CONTROL_NORM = "control_norm"
REWARD = "selection_reward_mean"
FLOPS = "inference_flops_share_mean"
KEPT = "inference_local_test_accuracy_mean"
PHASES = ("seconds_train", "seconds_aggregate", "seconds_evaluate")
BYTES = ["bytes_up_cumulative", "bytes_down_cumulative"]
ROUND_COLUMNS = [
    *(
        "run_id",
        "round",
        "participants",
        *BYTES,
        SIMULATED,
        "simulated_seconds",
        *PHASES,
        "seconds_total",
    ),
    *(OWN, PANEL, GLOBAL, VALIDATION, *CLIENTS.values()),
    *(COSINE, CONTROL_NORM, REWARD, FLOPS, KEPT),
]
"""What tables and pictures need of table rounds."""

MEGABYTE = 10**6
"""Bytes."""

HIGHER, LOWER = "higher", "lower"
BETTER: Mapping[str, str] = {
    OWN: HIGHER,
    PANEL: HIGHER,
    GLOBAL: HIGHER,
    VALIDATION: HIGHER,
    KEPT: HIGHER,
    "local_test_accuracy_p10": HIGHER,
    "after_local_test_accuracy_mean": HIGHER,
    "after_global_test_accuracy_mean": HIGHER,
    "untrained_local_test_accuracy_mean": HIGHER,
    "untrained_global_test_accuracy_mean": HIGHER,
    REWARD: HIGHER,
    COSINE: HIGHER,
    "train_loss": LOWER,
    "global_test_loss": LOWER,
    "local_test_loss_mean": LOWER,
    FLOPS: LOWER,
    "density": LOWER,
}
"""The metrics: columns of table rounds by which runs can be compared, and which values are better."""

TITLES = {
    OWN: "Clients' own test splits",
    PANEL: "Clients' own test splits",
    GLOBAL: "Global test set",
    COSINE: "Do clients pull the same way?",
    CONTROL_NORM: "Server's control variate",
    REWARD: "Reward while heads are tuned\nmean over the clients that tune one",
}
GOALS = {
    OWN: "accuracy on own test splits",
    PANEL: "accuracy on own test splits",
    GLOBAL: "accuracy on the global test set",
}
"""What is to be reached, in words."""

UNITS = {
    COSINE: "cosine of updates with their sum",
    CONTROL_NORM: "L2 norm (loss / parameter)",
    REWARD: "accuracy (fraction)",
}
"""What stands at the axis of a metric."""

NAMES = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "fednova": "FedNova",
    "fedper": "FedPer",
    "fedrep": "FedRep",
    "scaffold": "SCAFFOLD",
    "spatl": "SPATL",
    "local_only": "Local only",
}


def own_split(rounds: pd.DataFrame) -> str:
    """The column in which runs compare on clients' own splits: `PANEL` where it is known, or `OWN`.

    One column for all runs: the panel's is taken if no round of any run has only the other one, as
    rounds of older results have, or of runs that skip clients that never trained.
    """
    evaluated = rounds[rounds[[OWN, PANEL]].notna().any(axis=1)]
    return PANEL if len(evaluated) and evaluated[PANEL].notna().all() else OWN


def is_lower_better(metric: str) -> bool:
    """Whether less of a metric is better, as of a loss.

    Raises:
        LoadError: it is none of `BETTER`.
    """
    if metric not in BETTER:
        raise LoadError(f"metric must be one of {', '.join(BETTER)}, got {metric!r}")
    return BETTER[metric] == LOWER


def axis_label(metric: str) -> str:
    """What a metric is, with its unit."""
    if "accuracy" in metric:
        return "accuracy (fraction)"
    return UNITS.get(metric, metric)


def name_of(algorithm: str) -> str:
    """What an algorithm is called; an own one by its class."""
    return NAMES.get(algorithm, algorithm.rpartition(":")[2])
