"""What a search can aim at: figures of a round that no test data went into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.faults import nearest


@dataclass(frozen=True)
class Figure:
    """A figure of table `rounds`.

    Attributes:
        columns: whose sum it is.
        mode: max or min, what is better.
        text: what it is.
    """

    columns: tuple[str, ...]
    mode: str
    text: str


FIGURES: Mapping[str, Figure] = {
    "accuracy": Figure(
        ("local_validation_accuracy_mean",),
        "max",
        "mean accuracy on the clients' validation samples",
    ),
    "bytes": Figure(
        ("bytes_up_cumulative", "bytes_down_cumulative"), "min", "bytes sent so far, up and down"
    ),
    "bytes_up": Figure(("bytes_up_cumulative",), "min", "bytes sent up so far"),
    "bytes_down": Figure(("bytes_down_cumulative",), "min", "bytes sent down so far"),
    "train_loss": Figure(("train_loss",), "min", "mean loss of local training"),
    "inference_flops": Figure(
        ("inference_flops_share_mean",), "min", "share of the FLOPs that smaller models keep"
    ),
    "simulated_seconds": Figure(
        ("simulated_seconds_cumulative",), "min", "seconds so far on the clients' devices"
    ),
}
"""By the name under which Tune knows it."""

ROUNDS = "rounds"
"""Rounds so far, which schedulers count."""


def check_objectives(names: Sequence[str], experiment: Experiment) -> None:
    """Refuse what cannot be aimed at.

    Raises:
        ConfigError: one line a fault.
    """
    faults = [_unknown(name) for name in names if name not in FIGURES]
    faults += [
        f"objective {name} must be given once"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    if not names:
        faults.append(f"objective must be one of {', '.join(FIGURES)}, got none")
    if "accuracy" in names and not experiment.data.split.validation:
        faults.append(
            "data.split.validation must be above 0: objectives read validation data only, got 0"
        )
    if "simulated_seconds" in names and experiment.devices is None:
        faults.append("devices must be given with objective simulated_seconds, got null")
    if faults:
        raise ConfigError(faults)


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """All figures of a row of table `rounds`, and the rounds so far; NaN for what was not measured."""
    found = {name: _sum(row, figure.columns) for name, figure in FIGURES.items()}
    return {ROUNDS: int(row["round"]) + 1, **found}


def _sum(row: Mapping[str, Any], columns: Sequence[str]) -> float:
    values = [row[column] for column in columns]
    return math.nan if None in values else sum(values)


def _unknown(name: str) -> str:
    if "test" in name:
        return (
            f"objective must not read test data, got {name!r}: objectives read validation data only, "
            "such as accuracy"
        )
    close = nearest(name, FIGURES)
    hint = f"; did you mean {close!r}?" if close else ""
    return f"objective must be one of {', '.join(FIGURES)}, got {name!r}{hint}"
