"""Federated data: a data set, dealt to clients, each with its own train, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from spatl_ray import config, seeding
from spatl_ray.arrays import Integers
from spatl_ray.data.datasets import Dataset, digest
from spatl_ray.data.dealing import Partition, Transform, place_of
from spatl_ray.data.partition import make_partition
from spatl_ray.errors import DataError

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class FederatedData:
    """A data set and who holds what of its training samples.

    Attributes:
        dataset: the whole data set; its global test set belongs to no client.
        order: indices of training samples, int64, one client after the other, random inside each.
        bounds: for each client the start, the end of train, the end of validation and the end of
            test, as positions in `order`; int64, shape (clients, 4).
        transform: maps (client, sample indices, features) to what the client sees, or None.
    """

    dataset: Dataset
    order: Integers
    bounds: Integers
    transform: Transform | None = None

    @property
    def clients(self) -> int:
        """Number of clients."""
        return len(self.bounds)

    def sizes(self, split: SplitName) -> Integers:
        """Samples of each client in a split, shape (clients,)."""
        column = SPLITS.index(split)
        return self.bounds[:, column + 1] - self.bounds[:, column]

    def indices(self, client: int, split: SplitName) -> Integers:
        """Indices of a client's samples in a split, into the data set's training arrays."""
        if not 0 <= client < self.clients:
            raise DataError(f"client must be in [0, {self.clients}), got {client}")
        column = SPLITS.index(split)
        return self.order[self.bounds[client, column] : self.bounds[client, column + 1]]

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of a SHA-256 over the data set's, `order`, `bounds` and `transform`'s."""
        transform = [] if self.transform is None else [_fingerprint(self.transform)]
        return digest(self.dataset.fingerprint, self.order, self.bounds, *transform)


def _fingerprint(transform: Transform) -> str:
    """What a transform says of itself, else where it is defined."""
    return f"{place_of(transform)} {getattr(transform, 'fingerprint', '')}"


def federate(dataset: Dataset, experiment: config.Experiment) -> FederatedData:
    """Deal a data set's training samples to clients and split each client's own.

    Args:
        dataset: the data set.
        experiment: gives the seed, the number of clients, the partition and the split.

    Raises:
        ConfigError: a partition that the data set cannot satisfy.
        DataError: no partition was found, or a client is left with no training sample.
    """
    partition = make_partition(
        dataset.train_y,
        dataset.train_x,
        dataset.groups,
        experiment.partition,
        experiment.clients,
        seeding.generator(experiment.seed, "partition"),
    )
    order = _shuffle_within(partition, seeding.generator(experiment.seed, "split"))
    bounds = _split(partition, experiment.data.split)
    return FederatedData(dataset, order, bounds, partition.transform)


def _shuffle_within(partition: Partition, generator: np.random.Generator) -> Integers:
    """The partition's indices, in random order inside each client."""
    owners = np.repeat(np.arange(len(partition.sizes)), partition.sizes)
    return partition.indices[np.lexsort((generator.random(len(owners)), owners))]


def _split(partition: Partition, split: config.Split) -> Integers:
    """The bounds of each client's splits: floor(fraction * size), and the remainder to train.

    Raises:
        DataError: a client is left with no training sample.
    """
    sizes = partition.sizes
    validation, test = _floor_share(sizes, split.validation), _floor_share(sizes, split.test)
    train = sizes - validation - test
    if train.min() < 1:
        client = int(np.argmin(train))
        raise DataError(
            f"data.split must leave each client at least one training sample, got "
            f"train={train[client]}, validation={validation[client]}, test={test[client]} of "
            f"{sizes[client]} samples for client {client}"
        )
    start = partition.offsets[:-1]
    return np.stack([start, start + train, start + train + validation, start + sizes], axis=1)


def _floor_share(sizes: Integers, fraction: float) -> Integers:
    # The small term: 0.29 * 100 is 28.999999999999996 in floating point, and 29 is meant.
    share: Integers = np.floor(sizes * fraction + 1e-9).astype(np.int64)
    return share
