"""What all partitions share: who holds which training sample, and how samples are dealt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spatl_ray import plugins
from spatl_ray.arrays import Doubles, Features, Integers, readonly
from spatl_ray.errors import ConfigError, DataError

Transform = Callable[[int, Integers, Features], Features]
"""(client, indices of samples it holds, their features) to the features that the client sees.

It keeps shape and type, and writes into nothing that it is given. A sample's outcome is the same at
every call and on every machine. It travels to the workers, so it must be picklable. Its attribute
`fingerprint`, a text, enters that of the data; without one its class's or its own name does.
"""

REDRAWS = 1000

FIRST_REDRAWS, FEW_SHORT, FEW_CLIENTS = 10, 12, 100
"""Redraws end after the first ones if each draw left more than a few of many clients short.

What one client gets the others lack: with s clients short in the mean, a draw leaves none short with
a chance of about exp(-s) at most, and s is hardly below FEW_SHORT. With few clients all redraws take
little time.
"""

MACHINE = (OSError, MemoryError, RuntimeError)
"""What a transform may raise through no fault of its own: the worker tells which it is."""


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


def transformed(
    transform: Transform, client: int, indices: Integers, features: Features
) -> Features:
    """What a client sees of its samples.

    Args:
        transform: the partition's.
        client: who holds the samples.
        indices: of the samples.
        features: theirs.

    Raises:
        PluginError: the transform raises something else than what the machine may cause, such as
            when it writes into what it is given.
    """
    with plugins.blamed("partition transform", place_of(transform), passed=MACHINE):
        return transform(client, readonly(indices), readonly(features))


def place_of(transform: Transform) -> str:
    """Where a transform, or its class, is defined: module:name."""
    named = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{named.__module__}:{named.__qualname__}"


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


def cut(total: int, shares: Doubles) -> Integers | None:
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


@dataclass(frozen=True)
class Cut:
    """How one draw cuts the samples.

    Attributes:
        parts: sizes of all parts, in an order that the partition knows; None for a void draw.
        held: samples of each client, shape (clients,); of a void draw as far as it got.
    """

    parts: Integers | None
    held: Integers


@dataclass(frozen=True)
class Redraws:
    """Cuts by Dir(beta), drawn until each client holds enough samples.

    Attributes:
        name: of the partition, for the error.
        beta: concentration of the draws.
        clients: number of clients N.
        min_size: samples that each client needs.
        total: number of samples.
    """

    name: str
    beta: float
    clients: int
    min_size: int
    total: int

    def until_enough(self, draw: Callable[[], Cut]) -> Integers:
        """The parts of the first of `draw`'s cuts that gives each client `min_size` samples.

        Raises:
            DataError: 1,000 redraws did not, or the first ones were far from it.
        """
        fewest = self.clients
        for redraws in range(1 + REDRAWS):
            drawn = draw()
            short = int(np.count_nonzero(drawn.held < self.min_size))
            if drawn.parts is not None and not short:
                return drawn.parts
            fewest = min(fewest, short)
            if redraws == FIRST_REDRAWS and self.clients > FEW_CLIENTS and fewest > FEW_SHORT:
                raise self._failed(redraws, f", and all left at least {fewest} clients short")
        raise self._failed(REDRAWS)

    def _failed(self, redraws: int, addition: str = "") -> DataError:
        return DataError(
            f"partition {self.name}: none of {redraws} redraws with beta={self.beta:g} over "
            f"clients={self.clients} gave each client min_size={self.min_size} of {self.total} "
            f"samples{addition}: raise beta, lower clients or min_size, or use more samples"
        )
