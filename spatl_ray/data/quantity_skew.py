"""Partitions by number of samples alone: equal shares, and shares by a Dirichlet draw."""

from __future__ import annotations

import numpy as np

from spatl_ray import config
from spatl_ray.data.dealing import (
    Cut,
    Partition,
    Redraws,
    Samples,
    check_min_size,
    cut,
    equal_sizes,
    offsets_of,
)


def iid(
    samples: Samples, spec: config.Iid, clients: int, generator: np.random.Generator
) -> Partition:
    """A random permutation in equal shares: sizes differ by at most one."""
    sizes = equal_sizes(len(samples), clients)
    return Partition(generator.permutation(len(samples)), offsets_of(sizes))


def quantity(
    samples: Samples, spec: config.Quantity, clients: int, generator: np.random.Generator
) -> Partition:
    """A random permutation cut by p ~ Dir(beta 1_N), redrawn until each has `min_size` samples.

    Raises:
        ConfigError: not even equal shares would reach `min_size`.
        DataError: 1,000 redraws did not, or the first ones were far from it.
    """
    check_min_size(spec.min_size, clients, len(samples))

    def draw() -> Cut:
        sizes = cut(len(samples), generator.dirichlet(np.full(clients, spec.beta)))
        return Cut(sizes, np.zeros(clients, np.int64) if sizes is None else sizes)

    redraws = Redraws("quantity", spec.beta, clients, spec.min_size, len(samples))
    sizes = redraws.until_enough(draw)
    return Partition(generator.permutation(len(samples)), offsets_of(sizes))
