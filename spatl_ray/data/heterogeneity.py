"""How heterogeneous clients are: figures of who holds how many samples of which class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatl_ray.arrays import Doubles, Floats, Integers
from spatl_ray.data.dealing import Partition
from spatl_ray.data.feature_skew import Noise
from spatl_ray.data.federated import FederatedData


@dataclass(frozen=True)
class Heterogeneity:
    """Figures of label and size skew over clients.

    Attributes:
        distance_mean: mean over clients of the earth mover's distance; see `distances`.
        distance_p90: its 90th percentile.
        gini: Gini coefficient of the clients' sizes: 0 if all are equal, (n - 1) / n if one of n
            clients holds everything.
        smallest: samples of the smallest client.
        median: median of the clients' samples.
        largest: samples of the largest client.
        classes_mean: mean over clients of the number of classes that a client holds.
    """

    distance_mean: float
    distance_p90: float
    gini: float
    smallest: int
    median: float
    largest: int
    classes_mean: float


def class_counts(partition: Partition, labels: Integers, classes: int) -> Integers:
    """Samples of each class that each client holds, shape (clients, classes)."""
    return _count(labels[partition.indices], partition.sizes, classes)


def held_counts(data: FederatedData, most: int | None = None) -> Integers:
    """Samples of each class that each client holds in all its splits, shape (clients, classes).

    Args:
        data: who holds what.
        most: of the first so many clients only, or None for all.
    """
    bounds = data.bounds[:most]
    order = data.order[bounds[0, 0] : bounds[-1, -1]]
    return _count(data.dataset.train_y[order], bounds[:, -1] - bounds[:, 0], data.dataset.classes)


def noise_stds(data: FederatedData) -> Doubles | None:
    """The standard deviation of the noise on each client's features, or None without such noise."""
    noise = data.transform
    if not isinstance(noise, Noise):
        return None
    return np.array([noise.std(client) for client in range(data.clients)], np.float64)


def _count(labels: Integers, sizes: Integers, classes: int) -> Integers:
    clients = len(sizes)
    cell = np.repeat(np.arange(clients), sizes) * classes + labels
    return np.bincount(cell, minlength=clients * classes).reshape(clients, classes)


def distances(counts: Integers) -> Floats:
    """Each client's earth mover's distance sum_c |p_ic - p_c|, in [0, 2].

    p_i are the shares of the classes in client i, p those in all clients together. Between classes
    that are equally far from each other this is the L1 distance, which the source calls the earth
    mover's.

    Args:
        counts: shape (clients, classes), a sample at least in each row.

    Returns:
        Shape (clients,).

    References:
        Zhao, Li, Lai, Suda, Civin, Chandra, "Federated Learning with Non-IID Data",
        arXiv 1806.00582, section 3.2.
    """
    own = counts / counts.sum(axis=1, keepdims=True)
    whole = counts.sum(axis=0) / counts.sum()
    l1: Floats = np.abs(own - whole).sum(axis=1)
    return l1


def gini(sizes: Integers) -> float:
    """The Gini coefficient sum_i (2 i - n - 1) x_i / (n sum_i x_i), x ascending, i from 1."""
    n = len(sizes)
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float((weights @ np.sort(sizes)) / (n * sizes.sum()))


def heterogeneity(counts: Integers) -> Heterogeneity:
    """The figures of clients that hold `counts`, shape (clients, classes), a sample at least each."""
    distance, sizes = distances(counts), counts.sum(axis=1)
    return Heterogeneity(
        distance_mean=float(distance.mean()),
        distance_p90=float(np.percentile(distance, 90)),
        gini=gini(sizes),
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        classes_mean=float((counts > 0).sum(axis=1).mean()),
    )
