"""Pruners of small networks."""

from __future__ import annotations

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.graphs.trace import trace
from spatl_ray.models.flat import FlatModel
from spatl_ray.selection.pruning import Measure, Pruner


def pruner_of(
    model: FlatModel, measure: Measure = "flops", shape: tuple[int, ...] = (1, 16, 16)
) -> Pruner:
    """A pruner of a network for ten classes."""
    return Pruner(trace(model.split, SampleSpec(shape, 10), model.layout.shared.groups), measure)
