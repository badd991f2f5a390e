"""Partitions in which clients see different features: noise, octants of a cube, natural owners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatl_ray import config, seeding
from spatl_ray.arrays import Features, Integers
from spatl_ray.data.dealing import (
    Partition,
    Samples,
    deal,
    equal_sizes,
    offsets_of,
)
from spatl_ray.errors import ConfigError

CUBE_CLIENTS, CUBE_SHAPE = 4, (3,)


@dataclass(frozen=True, eq=False)
class Noise:
    """Gaussian noise of standard deviation s i / (n - 1) on the samples of client i of n.

    A client's noise is one draw for all its samples in ascending order, so that a sample's is the
    same in every split and round and on any worker; a call costs as much as the client's samples.

    Attributes:
        indices: sample indices, int64, one client after the other, ascending inside each.
        offsets: client i holds indices[offsets[i]:offsets[i + 1]].
        s: the last client's standard deviation, in units of the features.
        word: 32 random bits that key the noise, drawn with the partition.
    """

    indices: Integers
    offsets: Integers
    s: float
    word: int

    @property
    def fingerprint(self) -> str:
        """What decides the noise beside the indices and offsets."""
        return f"noise s={self.s!r} word={self.word}"

    def std(self, client: int) -> float:
        """The standard deviation of a client's noise; 0 for an only one."""
        return self.s * client / max(len(self.offsets) - 2, 1)

    def __call__(self, client: int, indices: Integers, features: Features) -> Features:
        """The features of samples that `client` holds, with their noise; shape (m, *shape)."""
        std = self.std(client)
        if std == 0:
            return features
        own = self.indices[self.offsets[client] : self.offsets[client + 1]]
        generator = seeding.generator(self.word, "feature noise", client=client)
        drawn = generator.standard_normal((len(own), *features.shape[1:]), np.float32)
        noise = np.float32(std) * drawn[np.searchsorted(own, indices)]
        noisy: Features = features + noise
        return noisy


def feature_noise(
    samples: Samples, spec: config.FeatureNoise, clients: int, generator: np.random.Generator
) -> Partition:
    """A random permutation in equal shares; client i sees its samples through `Noise`.

    Raises:
        ConfigError: features are token ids.
    """
    if np.issubdtype(samples.features.dtype, np.integer):
        raise ConfigError(
            "partition.name must not be 'feature_noise' for token ids, which noise would make "
            f"others: it needs real features, got {samples.features.dtype}"
        )
    offsets = offsets_of(equal_sizes(len(samples), clients))
    owners = np.repeat(np.arange(clients), np.diff(offsets))
    dealt = generator.permutation(len(samples))
    indices = dealt[np.lexsort((dealt, owners))]
    word = int(generator.integers(2**32))
    return Partition(indices, offsets, Noise(indices, offsets, spec.s, word))


def fcube(
    samples: Samples, spec: config.Fcube, clients: int, generator: np.random.Generator
) -> Partition:
    """Each of 4 clients holds one octant of the cube and its mirror image through the origin.

    Client 2 b + c with b = [x2 > 0] and c = [x3 > 0] where x1 <= 0, and their opposites where
    x1 > 0: so all clients have both labels of the data set fcube, but their features differ.

    Raises:
        ConfigError: other than 4 clients, or samples of another shape than (3,).

    References:
        Li, Diao, Chen, He, "Federated Learning on Non-IID Data Silos", ICDE 2022, section IV.
    """
    faults = []
    if clients != CUBE_CLIENTS:
        faults.append(
            f"clients must be {CUBE_CLIENTS} with partition fcube, a pair of octants each, "
            f"got {clients}"
        )
    if samples.features.shape[1:] != CUBE_SHAPE:
        faults.append(
            f"data.name must name samples of shape {CUBE_SHAPE} with partition fcube, such as the "
            f"data set fcube, got shape {samples.features.shape[1:]}"
        )
    if faults:
        raise ConfigError(faults)
    positive = samples.features > 0
    mirrored = positive[:, 1:] ^ positive[:, :1]
    return deal(np.arange(len(samples)), mirrored @ np.array([2, 1]), clients)


def writers(
    samples: Samples, spec: config.Writers, clients: int, generator: np.random.Generator
) -> Partition:
    """Client i holds all samples of the i-th natural owner that was drawn, in the owners' order.

    Owners with fewer than `min_size` samples are left out; of more owners than clients a random
    subset is drawn, and the others' samples are left out.

    Raises:
        ConfigError: the data set has no natural owners, or too few.
    """
    if samples.groups is None:
        raise ConfigError(
            "partition.name must not be 'writers' for data without natural owners; femnist and "
            "shakespeare have them, parquet with data.options.group, and own data sets with groups"
        )
    _, owner, sizes = np.unique(samples.groups, return_inverse=True, return_counts=True)
    large = np.flatnonzero(sizes >= spec.min_size)
    if len(large) < clients:
        raise ConfigError(
            f"clients must be at most {len(large)}, the number of owners with at least "
            f"partition.min_size={spec.min_size} samples, got {clients}"
        )
    chosen = np.sort(generator.choice(large, clients, replace=False))
    client_of = np.full(len(sizes), -1, np.int64)
    client_of[chosen] = np.arange(clients)
    clients_ = client_of[owner]
    return deal(np.flatnonzero(clients_ >= 0), clients_[clients_ >= 0], clients)
