"""Which trials go on: Ray Tune's schedulers, on rounds or on bytes spent."""

from __future__ import annotations

import math
from typing import Any

from ray import tune as ray_tune
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from tune.objectives import FIGURES, ROUNDS
from tune.space import Dimension
from tune.study import PBT, Study


def scheduler(study: Study) -> TrialScheduler:
    """The scheduler of a study, on its first objective."""
    name = study.objectives[0]
    aim: dict[str, Any] = {"metric": name, "mode": FIGURES[name].mode}
    if study.scheduler in ("asha", "asha-bytes"):
        return ASHAScheduler(
            time_attr=ROUNDS if study.scheduler == "asha" else "bytes",
            max_t=study.most,
            grace_period=study.grace,
            reduction_factor=study.reduction,
            **aim,
        )
    if study.scheduler == "median":
        # Without its pauses for the sake of trials that wait: a run has a checkpoint only now and then.
        aim["min_time_slice"] = math.inf
        return MedianStoppingRule(time_attr=ROUNDS, grace_period=study.grace, **aim)
    if study.scheduler == PBT:
        return PopulationBasedTraining(
            time_attr=ROUNDS,
            perturbation_interval=study.grace,
            hyperparam_mutations={
                "point": {each.key: _domain(each) for each in study.ranges.dimensions}
            },
            custom_explore_fn=_Inside(study.ranges.dimensions),
            log_config=False,
            **aim,
        )
    return FIFOScheduler()


class _Inside:
    """Brings what PBT changed back into the space.

    Args:
        dimensions: of the space.
    """

    def __init__(self, dimensions: tuple[Dimension, ...]) -> None:
        self._dimensions = dimensions

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        """The config with every number in its range."""
        for each in self._dimensions:
            if each.kind != "choice":
                low, high = each.values
                config["point"][each.key] = min(max(config["point"][each.key], low), high)
        return config


def _domain(dimension: Dimension) -> Any:
    """A range, as PBT draws from it; of a list it takes neighbours."""
    if dimension.kind == "choice":
        return list(dimension.labels())
    low, high = dimension.values
    if dimension.kind in ("int", "logint"):
        return list(range(low, high + 1))
    return (
        ray_tune.loguniform(low, high)
        if dimension.kind == "loguniform"
        else ray_tune.uniform(low, high)
    )
