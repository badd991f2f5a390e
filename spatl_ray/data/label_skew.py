"""Partitions in which clients hold the labels in different shares."""

from __future__ import annotations

import numpy as np

from spatl_ray import config
from spatl_ray.arrays import Integers
from spatl_ray.data.dealing import (
    Cut,
    Partition,
    Redraws,
    Samples,
    check_min_size,
    cut,
    deal,
    equal_sizes,
    shuffled_by_class,
)
from spatl_ray.errors import ConfigError


def dirichlet(
    samples: Samples, spec: config.Dirichlet, clients: int, generator: np.random.Generator
) -> Partition:
    """Each class is cut by p ~ Dir(beta 1_N); see `_cut_classes`.

    The cut is redrawn until the smallest client has at least `min_size` samples.

    Raises:
        ConfigError: not even equal shares would reach `min_size`.
        DataError: 1,000 redraws did not, or the first ones were far from it.
    """
    check_min_size(spec.min_size, clients, len(samples))
    totals = np.bincount(samples.labels)
    totals = totals[totals > 0]
    redraws = Redraws("dirichlet", spec.beta, clients, spec.min_size, len(samples))
    # Only sizes are drawn until a draw is accepted: no sample moves before.
    sizes = redraws.until_enough(lambda: _cut_classes(totals, spec.beta, clients, generator))
    owners = np.repeat(np.tile(np.arange(clients), len(totals)), sizes)
    return deal(shuffled_by_class(samples.labels, generator), owners, clients)


def _cut_classes(
    totals: Integers, beta: float, clients: int, generator: np.random.Generator
) -> Cut:
    """Parts: samples of each class for each client, class after class.

    Class by class: p ~ Dir(beta 1_N), p_j = 0 where client j already holds n / N samples or more,
    renormalised, and the class is cut by it.
    """
    shares = generator.dirichlet(np.full(clients, beta), size=len(totals))
    counts = np.zeros((len(totals), clients), np.int64)
    held = np.zeros(clients, np.int64)
    cap = totals.sum() / clients
    for c, total in enumerate(totals):
        count = cut(total, np.where(held < cap, shares[c], 0.0))
        if count is None:  # With a tiny beta all the mass can be on clients that are full.
            return Cut(None, held)
        counts[c] = count
        held += count
    return Cut(counts.ravel(), held)


def classes(
    samples: Samples, spec: config.Classes, clients: int, generator: np.random.Generator
) -> Partition:
    """Client i gets class i mod C and k - 1 other random classes.

    Each class is split equally among its owners (sizes differ by at most one); C counts the classes
    that have samples. With few clients a class can have no owner: its samples are left out. With
    fewer samples in a class than owners some of them get none, so hold fewer than k classes.

    Raises:
        ConfigError: k is larger than C.
    """
    present, dense = np.unique(samples.labels, return_inverse=True)
    if spec.k > len(present):
        raise ConfigError(
            f"partition.k must be at most {len(present)}, the number of classes, got {spec.k}"
        )
    pair_class, pair_client = _owners(len(present), spec.k, clients, generator)
    owners = np.bincount(pair_class, minlength=len(present))
    rank = np.arange(len(pair_class)) - (np.cumsum(owners) - owners)[pair_class]
    share, rest = np.divmod(np.bincount(dense), np.maximum(owners, 1))
    sizes = share[pair_class] + (rank < rest[pair_class])
    return _deal_owned(dense, owners > 0, np.repeat(pair_client, sizes), clients, generator)


def mixed(
    samples: Samples, spec: config.Mixed, clients: int, generator: np.random.Generator
) -> Partition:
    """Client i gets class i mod C and one other random class, each cut by Dir(beta) among its owners.

    The cut is redrawn until each client holds a sample. A class that nobody owns is left out.

    Raises:
        ConfigError: there are fewer than two classes.
        DataError: 1,000 redraws left a client with no sample, or the first ones left many.
    """
    present, dense = np.unique(samples.labels, return_inverse=True)
    if len(present) < 2:
        raise ConfigError(
            f"partition mixed gives each client two classes: data must have at least 2, "
            f"got {len(present)}"
        )
    pair_class, pair_client = _owners(len(present), 2, clients, generator)
    owners = np.bincount(pair_class, minlength=len(present))
    totals = np.bincount(dense)

    def draw() -> Cut:
        sizes = _cut_owned(totals, owners, spec.beta, generator)
        holders = pair_client[:0] if sizes is None else np.repeat(pair_client, sizes)
        return Cut(sizes, np.bincount(holders, minlength=clients))

    sizes = Redraws("mixed", spec.beta, clients, 1, len(samples)).until_enough(draw)
    return _deal_owned(dense, owners > 0, np.repeat(pair_client, sizes), clients, generator)


def _cut_owned(
    totals: Integers, owners: Integers, beta: float, generator: np.random.Generator
) -> Integers | None:
    """Samples of each pair of class and owner, class after class, or None for a void draw."""
    parts = []
    for total, count in zip(totals[owners > 0], owners[owners > 0], strict=True):
        part = cut(total, generator.dirichlet(np.full(count, beta)))
        if part is None:
            return None
        parts.append(part)
    return np.concatenate(parts)


def _owners(
    total: int, k: int, clients: int, generator: np.random.Generator
) -> tuple[Integers, Integers]:
    """Class and client of each pair of a class and its owner, sorted by class; clients * k pairs."""
    drawn = _draw_classes(total, k, clients, generator).ravel()
    by_class = np.argsort(drawn, kind="stable")
    return drawn[by_class], by_class // k


def _draw_classes(total: int, k: int, clients: int, generator: np.random.Generator) -> Integers:
    """k distinct classes for each client, its own class i mod C first; shape (clients, k)."""
    keys = generator.random((clients, total))
    keys[np.arange(clients), np.arange(clients) % total] = -1  # Below all others: it comes first.
    return np.argsort(keys, axis=1)[:, :k]


def _deal_owned(
    dense: Integers,
    is_owned: np.ndarray,
    owners: Integers,
    clients: int,
    generator: np.random.Generator,
) -> Partition:
    """Deal the samples of the owned classes, class after class, in random order inside each."""
    samples = shuffled_by_class(dense, generator)
    return deal(samples[is_owned[dense[samples]]], owners, clients)


def shards(
    samples: Samples, spec: config.Shards, clients: int, generator: np.random.Generator
) -> Partition:
    """Samples sorted by label and cut into clients * k equal shards, of which each client gets k.

    Shards differ by at most one sample, so clients by at most k. A run of L samples covers at most
    2 + floor((L - 2) / m) classes, m the smallest class's size: with no class smaller than a shard
    a client holds at most 2 k.

    Raises:
        ConfigError: there are more shards than samples.

    References:
        McMahan, Moore, Ramage, Hampson, Aguera y Arcas, AISTATS 2017, section 3.
    """
    number = clients * spec.k
    if number > len(samples):
        raise ConfigError(
            f"clients * partition.k must be at most {len(samples)}, the number of training "
            f"samples, got {clients} * {spec.k}"
        )
    by_label = shuffled_by_class(samples.labels, generator)
    holder = generator.permutation(number) // spec.k
    return deal(by_label, np.repeat(holder, equal_sizes(len(samples), number)), clients)
