"""What all partitions share: who holds which training sample, and how samples are dealt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spatl_ray.errors import ConfigError, DataError

Features = npt.NDArray[np.float32] | npt.NDArray[np.int64]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

Transform = Callable[[int, Integers, Features], Features]
"""(client, indices of samples it holds, their features) to the features that the client sees.

It keeps shape and type, and a sample's outcome is the same at every call and on every machine. It
travels to the workers, so it must be picklable. Its attribute `fingerprint`, a text, enters that of
the data; without one its class's or its own name does.
"""

REDRAWS = 1000


@dataclass(frozen=True, eq=False)
class Samples:
    """What a partition may look at.

    Attributes:
        labels: shape (n,).
        features: shape (n, *shape).
        groups: natural owner of each sample, shape (n,), or None.
    """

    labels: Integers
    features: Features
    groups: Integers | None

    def __len__(self) -> int:
        return len(self.labels)


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
"""(samples, spec, clients, generator) -> Partition, as `make_partition`."""


def equal_sizes(total: int, parts: int) -> Integers:
    """Sizes of `parts` parts that differ by at most one, the larger ones first."""
    share, rest = divmod(total, parts)
    sizes = np.full(parts, share, np.int64)
    sizes[:rest] += 1
    return sizes


def offsets_of(sizes: Integers) -> Integers:
    """Where each part starts, and the end of the last one."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def deal(samples: Integers, owners: Integers, clients: int) -> Partition:
    """The partition in which sample samples[j] belongs to client owners[j]."""
    sizes = np.bincount(owners, minlength=clients)
    return Partition(samples[np.argsort(owners, kind="stable")], offsets_of(sizes))


def shuffled_by_class(labels: Integers, generator: np.random.Generator) -> Integers:
    """Sample indices sorted by label, in random order inside each class."""
    return np.lexsort((generator.random(len(labels)), labels))


def cut(total: int, shares: Floats) -> Integers | None:
    """Whole samples by shares: floor(n P_j) - floor(n P_{j-1}), P the sums of the normalised shares.

    Returns:
        Sizes that sum to `total`; None if the shares have no finite positive sum.
    """
    sums = np.cumsum(shares)
    if not 0 < sums[-1] < np.inf:
        return None
    # From the last positive share on, sums / sums[-1] is exactly 1: the samples are used up there.
    sizes: Integers = np.diff(np.floor(sums / sums[-1] * total).astype(np.int64), prepend=0)
    return sizes


def check_min_size(min_size: int, clients: int, total: int) -> None:
    """Refuse a smallest size that not even equal shares would reach.

    Raises:
        ConfigError: min_size * clients is more than the training samples.
    """
    if min_size * clients > total:
        raise ConfigError(
            f"partition.min_size * clients must be at most {total}, the number of training "
            f"samples, got {min_size} * {clients}"
        )


def never_drawn(name: str, beta: float, clients: int, min_size: int, total: int) -> DataError:
    """The error of a partition whose smallest client stayed too small in every redraw."""
    return DataError(
        f"partition {name}: none of {REDRAWS} redraws with beta={beta:g} over "
        f"clients={clients} gave each client min_size={min_size} of {total} samples: "
        "raise beta, lower clients or min_size, or use more samples"
    )
