"""Pruning environments of small networks whose rewards are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flat_models import flatten, split_model
from pruners import pruner_of

from spatl_ray.models.flat import FlatModel
from spatl_ray.selection.environment import PruningEnvironment
from spatl_ray.selection.features import Features
from spatl_ray.selection.pruning import Pruned
from spatl_ray.selection.salience import channel_norms


def environment_of(
    model: FlatModel | None = None,
    accuracy: Callable[[Pruned], float] = lambda pruned: float(pruned.ratios[0]),
    budget: float = 0.6,
    steps: int = 1,
    **options: Any,
) -> PruningEnvironment:
    """By default a small ResNet-20, rewarded with the keep ratio of its first layer."""
    model = model or flatten(split_model("resnet20", width=4))
    pruner, space = pruner_of(model, **options), model.layout.shared
    weights = model.read().parameters[: space.size]
    scores = channel_norms(space, weights, 2)
    return PruningEnvironment(
        pruner, Features(pruner, space), scores, weights, accuracy, budget, steps
    )
