"""What each run is to reach: a value, what other methods of its setting and seed reach, or what all do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.load import LoadError
from analysis.methods import FINISHED, SETTING
from analysis.metrics import is_lower_better

LAST = 3
"""Evaluated rounds at the end of a run whose mean is what it came to."""


@dataclass(frozen=True)
class Like:
    """The mean of what methods come to, in the same setting and with the same seed.

    Attributes:
        methods: algorithms or labels.
        margin: by how much it may be missed: in the metric's own unit, 0.01 is a point of accuracy.
    """

    methods: Sequence[str]
    margin: float = 0.0


Target = float | Like | None


def aims(runs: pd.DataFrame, rounds: pd.DataFrame, metric: str, target: Target = None) -> pd.Series:
    """The value that each run is to reach, on the index of `runs`; NaN where it is not known.

    Without a target it is the hardest that all of its setting reach: the worst of the best values of the
    setting's finished runs; of all, where none has finished.

    Args:
        runs: rows of table runs, tagged for a target of `Like`.
        rounds: rows of table rounds.
        metric: one of `metrics.BETTER`.
        target: a value, or what to be like.

    Raises:
        LoadError: the target is not finite, or there is no such method.
    """
    if isinstance(target, Like):
        return _like(runs, rounds, metric, target)
    if target is not None and not math.isfinite(target):
        raise LoadError(f"target must be a finite number, got {target}")
    if target is not None:
        return pd.Series(target, index=runs.index)
    is_lower = is_lower_better(metric)
    values = rounds.groupby("run_id")[metric]
    reached = runs["run_id"].map(values.min() if is_lower else values.max()).astype(float)

    def hardest(best: pd.Series) -> pd.Series:
        by = best.groupby([runs[name] for name in SETTING])
        return by.transform("max") if is_lower else by.transform("min")

    return hardest(reached.where(runs["status"] == FINISHED)).fillna(hardest(reached))


def _like(runs: pd.DataFrame, rounds: pd.DataFrame, metric: str, target: Like) -> pd.Series:
    """The mean over the methods of what each comes to, that over its runs; NaN where one has none."""
    check_methods(runs, target.methods, "target")
    ordered = rounds.sort_values("round").dropna(subset=[metric])
    came = ordered.groupby("run_id")[metric].apply(lambda values: values.tail(LAST).mean())
    of = runs.assign(came=runs["run_id"].map(came).where(runs["status"] == FINISHED))
    place = [*SETTING, "seed"]
    parts = []
    for name in target.methods:
        own = of[(of[["algorithm", "label"]] == name).any(axis=1)]
        found = own.groupby(place)["came"].mean().rename("aim").reset_index()
        parts.append(runs[place].merge(found, on=place, how="left")["aim"].to_numpy())
    margin = target.margin if is_lower_better(metric) else -target.margin
    return pd.Series(sum(parts) / len(parts) + margin, index=runs.index, dtype=float)


def check_methods(runs: pd.DataFrame, names: Sequence[str], what: str) -> None:
    """Raise unless each name is an algorithm or label of the runs."""
    known = {*runs["algorithm"], *runs["label"]}
    if unknown := [name for name in names if name not in known]:
        raise LoadError(
            f"{what} must be an algorithm or method of these runs, got {unknown[0]!r}; there are: "
            f"{', '.join(sorted(known))}"
        )
