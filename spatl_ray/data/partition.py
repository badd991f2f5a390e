"""Partitions: which client holds which training sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spatl_ray import config
from spatl_ray.errors import ConfigError, DataError

Features = npt.NDArray[np.float32] | npt.NDArray[np.int64]
Integers = npt.NDArray[np.int64]
Transform = Callable[[int, Integers, Features], Features]

REDRAWS = 1000


@dataclass(frozen=True, eq=False)
class Partition:
    """Disjoint sets of training samples, one a client.

    Attributes:
        indices: sample indices, int64, one client after the other.
        offsets: client i holds indices[offsets[i]:offsets[i + 1]]; int64, shape (clients + 1,).
        transform: maps (client, sample indices, features) to what the client sees, or None.
    """

    indices: Integers
    offsets: Integers
    transform: Transform | None = None

    def client(self, i: int) -> Integers:
        """The sample indices of client `i`."""
        if not 0 <= i < len(self.offsets) - 1:
            raise DataError(f"client must be in [0, {len(self.offsets) - 1}), got {i}")
        return self.indices[self.offsets[i] : self.offsets[i + 1]]

    @property
    def sizes(self) -> Integers:
        """Samples of each client, shape (clients,)."""
        return np.diff(self.offsets)


Partitioner = Callable[..., Partition]
"""(labels, features, groups, spec, clients, generator), as `make_partition`."""


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
        ConfigError: more clients than samples, or a parameter that the labels cannot satisfy.
        DataError: no partition was found, or a client is left with no sample.

    References:
        Li, Diao, Chen, He, "Federated Learning on Non-IID Data Silos", ICDE 2022.
    """
    if clients > len(labels):
        raise ConfigError(
            f"clients must be at most {len(labels)}, the number of training samples, got {clients}"
        )
    partition = PARTITIONERS[spec.name](labels, features, groups, spec, clients, generator)
    empty = np.flatnonzero(partition.sizes == 0)
    if empty.size:
        raise DataError(
            f"partition {spec!r} left {empty.size} of {clients} clients with no sample "
            f"(client {empty[0]} is the first): use fewer clients or more samples"
        )
    return partition


def _iid(
    labels: Integers,
    features: Features,
    groups: Integers | None,
    spec: config.Iid,
    clients: int,
    generator: np.random.Generator,
) -> Partition:
    """A random permutation in equal shares: sizes differ by at most one."""
    share, rest = divmod(len(labels), clients)
    sizes = np.full(clients, share, np.int64)
    sizes[:rest] += 1
    return Partition(generator.permutation(len(labels)), _offsets(sizes))


def _dirichlet(
    labels: Integers,
    features: Features,
    groups: Integers | None,
    spec: config.Dirichlet,
    clients: int,
    generator: np.random.Generator,
) -> Partition:
    """Label skew: each class is cut by p ~ Dir(beta 1_N); see `_cut_classes`.

    The cut is redrawn until the smallest client has at least `min_size` samples.

    Raises:
        ConfigError: not even equal shares would reach `min_size`.
        DataError: 1,000 redraws did not.
    """
    total = len(labels)
    if spec.min_size * clients > total:
        raise ConfigError(
            f"partition.min_size * clients must be at most {total}, the number of training "
            f"samples, got {spec.min_size} * {clients}"
        )
    totals = np.bincount(labels)
    # Only sizes are drawn until a draw is accepted: no sample moves before.
    for _ in range(1 + REDRAWS):
        counts = _cut_classes(totals[totals > 0], spec.beta, clients, generator)
        if counts is not None and counts.sum(axis=0).min() >= spec.min_size:
            owners = np.repeat(np.tile(np.arange(clients), len(counts)), counts.ravel())
            return _deal(_shuffled_by_class(labels, generator), owners, clients)
    raise DataError(
        f"partition dirichlet: none of {REDRAWS} redraws with beta={spec.beta:g} over "
        f"clients={clients} gave each client min_size={spec.min_size} of {total} samples: "
        "raise beta, lower clients or min_size, or use more samples"
    )


def _cut_classes(
    totals: Integers, beta: float, clients: int, generator: np.random.Generator
) -> Integers | None:
    """Samples of each class for each client, shape (classes, clients), or None for a void draw.

    Class by class: p ~ Dir(beta 1_N), p_j = 0 where client j already holds n / N samples or more,
    renormalised; client j gets floor(n_c P_j) - floor(n_c P_{j-1}) samples, P the sums of p.
    """
    shares = generator.dirichlet(np.full(clients, beta), size=len(totals))
    counts = np.zeros((len(totals), clients), np.int64)
    held = np.zeros(clients, np.int64)
    cap = totals.sum() / clients
    for total, share, count in zip(totals, shares, counts, strict=True):
        sums = np.cumsum(np.where(held < cap, share, 0.0))
        if not sums[-1] > 0:  # With a tiny beta all the mass can be on clients that are full.
            return None
        # From the last positive share on, sums / sums[-1] is exactly 1: the class is used up there.
        count[:] = np.diff(np.floor(sums / sums[-1] * total).astype(np.int64), prepend=0)
        held += count
    return counts


def _classes(
    labels: Integers,
    features: Features,
    groups: Integers | None,
    spec: config.Classes,
    clients: int,
    generator: np.random.Generator,
) -> Partition:
    """Client i gets class i mod C and k - 1 other random classes.

    Each class is split equally among its owners (sizes differ by at most one); C counts the classes
    that have samples. With few clients a class can have no owner: its samples are left out. With
    fewer samples in a class than owners some of them get none, so hold fewer than k classes.

    Raises:
        ConfigError: k is larger than C.
    """
    present, dense = np.unique(labels, return_inverse=True)
    if spec.k > len(present):
        raise ConfigError(
            f"partition.k must be at most {len(present)}, the number of classes, got {spec.k}"
        )
    drawn = _draw_classes(len(present), spec.k, clients, generator).ravel()
    by_class = np.argsort(drawn, kind="stable")
    pair_class, pair_client = drawn[by_class], by_class // spec.k
    owners = np.bincount(drawn, minlength=len(present))
    rank = np.arange(len(drawn)) - (np.cumsum(owners) - owners)[pair_class]
    share, rest = np.divmod(np.bincount(dense), np.maximum(owners, 1))
    sizes = share[pair_class] + (rank < rest[pair_class])
    samples = _shuffled_by_class(dense, generator)
    return _deal(samples[owners[dense[samples]] > 0], np.repeat(pair_client, sizes), clients)


def _draw_classes(classes: int, k: int, clients: int, generator: np.random.Generator) -> Integers:
    """k distinct classes for each client, its own class i mod C first; shape (clients, k)."""
    keys = generator.random((clients, classes))
    keys[np.arange(clients), np.arange(clients) % classes] = -1  # Below all others: it comes first.
    return np.argsort(keys, axis=1)[:, :k]


def _shuffled_by_class(labels: Integers, generator: np.random.Generator) -> Integers:
    """Sample indices sorted by label, in random order inside each class."""
    return np.lexsort((generator.random(len(labels)), labels))


def _deal(samples: Integers, owners: Integers, clients: int) -> Partition:
    """The partition in which sample samples[j] belongs to client owners[j]."""
    sizes = np.bincount(owners, minlength=clients)
    return Partition(samples[np.argsort(owners, kind="stable")], _offsets(sizes))


def _offsets(sizes: Integers) -> Integers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


PARTITIONERS: Mapping[str, Partitioner] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "classes": _classes,
}
