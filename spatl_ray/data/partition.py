"""Partitions: which client holds which training sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spatl_ray import config
from spatl_ray.arrays import Features, Integers
from spatl_ray.data.dealing import Partition, Partitioner, Samples, Transform
from spatl_ray.data.feature_skew import fcube, feature_noise, writers
from spatl_ray.data.label_skew import classes, dirichlet, mixed, shards
from spatl_ray.data.own_partition import own_partition
from spatl_ray.data.quantity_skew import iid, quantity
from spatl_ray.errors import ConfigError, DataError

__all__ = ["PARTITIONERS", "Partition", "Transform", "make_partition"]

PARTITIONERS: Mapping[str, Partitioner] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "classes": classes,
    "quantity": quantity,
    "mixed": mixed,
    "shards": shards,
    "feature_noise": feature_noise,
    "fcube": fcube,
    "writers": writers,
}


def make_partition(
    labels: Integers,
    features: Features,
    groups: Integers | None,
    spec: config.Partition,
    clients: int,
    generator: np.random.Generator,
) -> Partition:
    """Deal training samples to clients.

    Args:
        labels: shape (n,).
        features: shape (n, *shape).
        groups: natural owner of each sample, shape (n,), or None.
        spec: which partition, and its parameters.
        clients: number of clients N.
        generator: draws everything that is random.

    Raises:
        ConfigError: more clients than samples, or a parameter that the data cannot satisfy.
        DataError: no partition was found, an own one breaks a rule, or a client is left with no
            sample.

    References:
        Li, Diao, Chen, He, "Federated Learning on Non-IID Data Silos", ICDE 2022.
    """
    if clients > len(labels):
        raise ConfigError(
            f"clients must be at most {len(labels)}, the number of training samples, got {clients}"
        )
    partitioner: Partitioner = PARTITIONERS.get(spec.name, own_partition)
    partition = partitioner(Samples(labels, features, groups), spec, clients, generator)
    empty = np.flatnonzero(partition.sizes == 0)
    if empty.size:
        raise DataError(
            f"partition {spec!r} left {empty.size} of {clients} clients with no sample "
            f"(client {empty[0]} is the first): use fewer clients or more samples"
        )
    return partition
