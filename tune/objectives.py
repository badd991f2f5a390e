"""What a search can aim at: figures of a round that no test data went into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spatl_ray.config import Experiment, OwnAlgorithm
from spatl_ray.errors import ConfigError
from spatl_ray.faults import nearest


@dataclass(frozen=True)
class Figure:
    """A figure of table `rounds`.

    Attributes:
        columns: whose sum it is.
        mode: max or min, what is better.
        worst: what stands for a value that is none, such as the loss of a model that diverged; finite, as
            schedulers and searchers reckon with it.
        text: what it is.
    """

    columns: tuple[str, ...]
    mode: str
    worst: float
    text: str


HUGE = 1e30
"""More than any loss, bytes or seconds; its square is a number, too."""

FIGURES: Mapping[str, Figure] = {
    "accuracy": Figure(
        ("local_validation_accuracy_mean",),
        "max",
        0.0,
        "mean accuracy on the clients' validation samples",
    ),
    "bytes": Figure(
        ("bytes_up_cumulative", "bytes_down_cumulative"),
        "min",
        HUGE,
        "bytes sent so far, up and down",
    ),
    "bytes_up": Figure(("bytes_up_cumulative",), "min", HUGE, "bytes sent up so far"),
    "bytes_down": Figure(("bytes_down_cumulative",), "min", HUGE, "bytes sent down so far"),
    "train_loss": Figure(("train_loss",), "min", HUGE, "mean loss of local training"),
    "inference_flops": Figure(
        ("inference_flops_share_mean",), "min", 1.0, "share of the FLOPs that smaller models keep"
    ),
    "simulated_seconds": Figure(
        ("simulated_seconds_cumulative",), "min", HUGE, "seconds so far on the clients' devices"
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
    if "inference_flops" in names and not _keeps_for_inference(experiment):
        faults.append(
            "algorithm must keep a part of the model for inference with objective inference_flops, as spatl "
            f"does with algorithm.inference or algorithm.agent, got {experiment.algorithm.name}: it "
            "measures none"
        )
    if "simulated_seconds" in names and experiment.devices is None:
        faults.append("devices must be given with objective simulated_seconds, got null")
    if faults:
        raise ConfigError(faults)


def _keeps_for_inference(experiment: Experiment) -> bool:
    """Whether it may be measured; of an own algorithm nobody knows."""
    algorithm = experiment.algorithm
    return isinstance(algorithm, OwnAlgorithm) or bool(
        getattr(algorithm, "keeps_for_inference", False)
    )


def told(row: Mapping[str, Any], objectives: Sequence[str]) -> dict[str, float]:
    """The figures of a row as Tune is told them: an objective that is no number counts as the worst.

    Tune's schedulers go on with a trial whose metric is NaN, as no comparison with it holds.
    """
    found = figures(row)
    worst = {name: FIGURES[name].worst for name in objectives if not math.isfinite(found[name])}
    return {**found, **worst}


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
