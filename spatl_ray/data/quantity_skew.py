"""Partitions by number of samples alone: equal shares, and shares by a Dirichlet draw."""

from __future__ import annotations

import numpy as np

from spatl_ray import config
from spatl_ray.data.dealing import (
    REDRAWS,
    Partition,
    Samples,
    check_min_size,
    cut,
    equal_sizes,
    never_drawn,
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
        DataError: 1,000 redraws did not.
    """
    check_min_size(spec.min_size, clients, len(samples))
    for _ in range(1 + REDRAWS):
        sizes = cut(len(samples), generator.dirichlet(np.full(clients, spec.beta)))
        if sizes is not None and sizes.min() >= spec.min_size:
            return Partition(generator.permutation(len(samples)), offsets_of(sizes))
    raise never_drawn("quantity", spec.beta, clients, spec.min_size, len(samples))
