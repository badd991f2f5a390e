"""Deals to look into: small data, and who holds how much of each class."""

from __future__ import annotations

import numpy as np

from spatl_ray import config
from spatl_ray.arrays import Integers
from spatl_ray.data.partition import Partition, make_partition


def deal(
    labels: Integers,
    spec: config.Partition,
    clients: int,
    seed: int = 0,
    features: np.ndarray | None = None,
    groups: Integers | None = None,
) -> Partition:
    """The partition; features are zeros if none are given."""
    x = np.zeros((len(labels), 1), np.float32) if features is None else features
    return make_partition(labels, x, groups, spec, clients, np.random.default_rng(seed))


def balanced(classes: int, each: int) -> Integers:
    return np.tile(np.arange(classes), each)


def held(partition: Partition, labels: Integers) -> Integers:
    """Samples of each class (row) that each client (column) holds."""
    clients = len(partition.sizes)
    owners = np.repeat(np.arange(clients), partition.sizes)
    counts = np.zeros((labels.max() + 1, clients), np.int64)
    np.add.at(counts, (labels[partition.indices], owners), 1)
    return counts


def covers(partition: Partition, samples: int) -> bool:
    """Whether each of `samples` samples belongs to exactly one client."""
    return np.array_equal(np.sort(partition.indices), np.arange(samples))


def is_disjoint(partition: Partition, samples: int) -> bool:
    """Whether each of `samples` samples belongs to one client at most, and no others to any."""
    indices = partition.indices
    inside = not indices.size or 0 <= indices.min() <= indices.max() < samples
    return bool(inside) and len(np.unique(indices)) == len(indices)
