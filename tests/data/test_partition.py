"""Partitions: the laws of each, and what cannot be dealt."""

from __future__ import annotations

import time
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray import config
from spatl_ray.data.partition import PARTITIONERS, Partition, make_partition
from spatl_ray.errors import ConfigError, DataError

Integers = npt.NDArray[np.int64]

LAWS = settings(deadline=None, max_examples=50)
seeds = st.integers(0, 2**32 - 1)


def deal(labels: Integers, spec: config.Partition, clients: int, seed: int = 0) -> Partition:
    features = np.zeros((len(labels), 1), np.float32)
    return make_partition(labels, features, None, spec, clients, np.random.default_rng(seed))


def class_counts(partition: Partition, labels: Integers) -> Integers:
    """Samples of each class (row) that each client (column) holds."""
    clients = len(partition.sizes)
    owners = np.repeat(np.arange(clients), partition.sizes)
    counts = np.zeros((labels.max() + 1, clients), np.int64)
    np.add.at(counts, (labels[partition.indices], owners), 1)
    return counts


def covers(partition: Partition, samples: int) -> bool:
    """Whether each of `samples` samples belongs to exactly one client."""
    return np.array_equal(np.sort(partition.indices), np.arange(samples))


def balanced(classes: int, each: int) -> Integers:
    return np.tile(np.arange(classes), each)


def heterogeneity(partition: Partition, labels: Integers) -> float:
    """Mean total-variation distance of the clients' label distributions from the global one."""
    counts = class_counts(partition, labels)
    everyone = np.bincount(labels, minlength=len(counts)) / len(labels)
    return float(
        np.abs(counts / counts.sum(axis=0) - everyone[:, np.newaxis]).sum(axis=0).mean() / 2
    )


@LAWS
@given(samples=st.integers(1, 300), data=st.data(), seed=seeds)
def test_iid_covers_in_equal_shares(samples: int, data: st.DataObject, seed: int) -> None:
    clients = data.draw(st.integers(1, samples))
    partition = deal(np.zeros(samples, np.int64), config.Iid(), clients, seed)
    assert covers(partition, samples)
    assert len(partition.sizes) == clients
    assert np.ptp(partition.sizes) <= 1


@LAWS
@given(
    each=st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any),
    beta=st.floats(0.05, 100),
    clients=st.integers(1, 5),
    min_size=st.integers(1, 3),
    seed=seeds,
)
def test_dirichlet_covers_with_min_size_and_caps(
    each: list[int], beta: float, clients: int, min_size: int, seed: int
) -> None:
    """A client with n/N samples or more after the classes before c gets none of class c."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(each)), each))
    spec = config.Dirichlet(beta=beta, min_size=min_size)
    try:
        partition = deal(labels, spec, clients, seed)
    except (ConfigError, DataError):
        assert min_size * clients > len(labels) / 20  # Only where samples are scarce.
        return
    assert covers(partition, len(labels))
    assert partition.sizes.min() >= min_size
    counts = class_counts(partition, labels)
    held_before = np.cumsum(counts, axis=0) - counts
    assert not counts[held_before >= len(labels) / clients].any()


@pytest.mark.parametrize("seed", range(10))
def test_dirichlet_redraws_until_min_size(seed: int) -> None:
    """About one draw in 20 leaves each of these ten clients 35 of the 500 samples."""
    labels = balanced(10, 50)
    spec = config.Dirichlet(beta=0.3, min_size=35)
    assert deal(labels, spec, 10, seed).sizes.min() >= 35


def test_dirichlet_samples_are_random_inside_a_class() -> None:
    """A client's share of a class is no contiguous run of the data set."""
    labels = np.repeat(np.arange(2), 500)
    own = np.sort(deal(labels, config.Dirichlet(beta=10.0), 4).client(0))
    assert (np.diff(own) > 1).sum() > len(own) / 4


def test_dirichlet_heterogeneity_falls_with_beta() -> None:
    """Over 10 seeds: at beta 0.1 clients hold few classes, at 100 there is hardly any skew."""
    labels = balanced(10, 200)
    means = [
        np.mean(
            [
                heterogeneity(deal(labels, config.Dirichlet(beta=beta), 10, seed), labels)
                for seed in range(10)
            ]
        )
        for beta in (0.1, 1.0, 100.0)
    ]
    assert means[0] > means[1] + 0.1 > means[2] + 0.2
    assert means[0] > 0.5
    assert means[2] < 0.1


def test_dirichlet_shares_have_the_moments_of_the_distribution() -> None:
    """For one class nothing is capped: shares are Dir(beta 1_N), with variance

    (1/N)(1 - 1/N) / (N beta + 1) = 0.1875 / 9 for N = 4, beta = 2. The estimate from 1,000 draws
    has a relative error near sqrt(2 / 1000) = 4.5 %; the cut adds below 1e-3 each.
    """
    labels = np.zeros(10_000, np.int64)
    spec = config.Dirichlet(beta=2.0, min_size=1)
    shares = np.array([deal(labels, spec, 4, seed).sizes[0] for seed in range(1000)]) / 10_000
    assert shares.mean() == pytest.approx(0.25, abs=0.015)
    assert shares.var() == pytest.approx(0.1875 / 9, rel=0.2)


@LAWS
@given(
    each=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    data=st.data(),
    seed=seeds,
)
def test_classes_splits_each_class_equally_among_its_owners(
    each: list[int], data: st.DataObject, seed: int
) -> None:
    """With enough samples a class: client i owns class i mod C and k - 1 others, no more."""
    classes = len(each)
    k = data.draw(st.integers(1, classes))
    clients = data.draw(st.integers(1, min(each)))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), each))
    partition = deal(labels, config.Classes(k=k), clients, seed)
    counts = class_counts(partition, labels)
    assert ((counts > 0).sum(axis=0) == k).all()
    assert (counts[np.arange(clients) % classes, np.arange(clients)] > 0).all()
    for row, total in zip(counts, each, strict=True):
        assert row.sum() in (0, total)
        assert not row.any() or np.ptp(row[row > 0]) <= 1
    assert len(np.unique(partition.indices)) == len(partition.indices)
    if clients >= classes:
        assert covers(partition, len(labels))


def test_classes_leaves_out_a_class_without_owner() -> None:
    labels = balanced(5, 10)
    partition = deal(labels, config.Classes(k=1), 3)
    assert np.bincount(labels[partition.indices], minlength=5).tolist() == [10, 10, 10, 0, 0]


def test_classes_counts_only_classes_that_have_samples() -> None:
    labels = np.repeat([0, 3, 7], 20)
    partition = deal(labels, config.Classes(k=1), 3)
    assert [np.unique(labels[partition.client(i)]).tolist() for i in range(3)] == [[0], [3], [7]]


def test_classes_draws_all_others_equally_often() -> None:
    """Client 0's second class is uniform over the 4 others: 250 of 1,000 each, deviation 14."""
    labels = balanced(5, 2)
    drawn = [deal(labels, config.Classes(k=2), 1, seed).indices for seed in range(1000)]
    others = np.bincount(np.concatenate([np.unique(labels[own]) for own in drawn]), minlength=5)
    assert others[0] == 1000
    assert np.abs(others[1:] - 250).max() < 75


SPECS = [config.Iid(), config.Dirichlet(beta=0.5), config.Classes(k=2)]


def test_every_partition_of_the_config_is_known() -> None:
    assert list(PARTITIONERS) == [spec.name for spec in SPECS]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_seed_decides(spec: config.Partition) -> None:
    labels = balanced(10, 50)
    first, again, other = (deal(labels, spec, 8, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.indices, again.indices)
    assert np.array_equal(first.offsets, again.offsets)
    assert not np.array_equal(first.indices, other.indices)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_clients_are_the_slices_between_offsets(spec: config.Partition) -> None:
    partition = deal(balanced(10, 50), spec, 8)
    assert partition.indices.dtype == partition.offsets.dtype == np.int64
    own = [partition.client(i) for i in range(8)]
    assert [len(indices) for indices in own] == partition.sizes.tolist()
    assert np.array_equal(np.concatenate(own), partition.indices)


@pytest.mark.parametrize("client", [-1, 8])
def test_a_client_that_does_not_exist_is_an_error(client: int) -> None:
    with pytest.raises(DataError, match=rf"client must be in \[0, 8\), got {client}"):
        deal(balanced(2, 8), config.Iid(), 8).client(client)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_more_clients_than_samples_is_refused(spec: config.Partition) -> None:
    with pytest.raises(ConfigError, match=r"clients must be at most 10, .*got 11"):
        deal(balanced(2, 5), spec, 11)


def test_a_min_size_above_equal_shares_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"partition\.min_size \* clients.*100.*11 \* 10"):
        deal(balanced(10, 10), config.Dirichlet(min_size=11), 10)


def test_a_hopeless_dirichlet_gives_up_within_seconds() -> None:
    """With beta = 0.01 a class goes to one or two of the 100 clients; 10 classes reach few."""
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"beta=0\.01 over clients=100.*min_size=10.*raise beta"):
        deal(balanced(10, 1200), config.Dirichlet(beta=0.01), 100)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("beta", [1e-300, 1e-6, 1e308])
def test_a_beta_beyond_floating_point_is_an_error(beta: float) -> None:
    """All mass on clients that are full, or shares of infinity by infinity: void draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="redraws with beta=1e"):
            deal(balanced(3, 20), config.Dirichlet(beta=beta, min_size=1), 10)


def test_more_classes_a_client_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"partition\.k must be at most 3, .*got 4"):
        deal(balanced(3, 9), config.Classes(k=4), 3)


def test_a_client_without_samples_is_an_error() -> None:
    """Clients 0, 2, 4, 6 own class 0, which has three samples."""
    labels = np.array([0] * 3 + [1] * 20)
    with pytest.raises(DataError, match=r"1 of 8 clients with no sample \(client 6"):
        deal(labels, config.Classes(k=1), 8)


@pytest.mark.parametrize("spec", [config.Iid(), config.Classes(k=2)], ids=lambda spec: spec.name)
def test_a_million_samples_over_100_000_clients(spec: config.Partition) -> None:
    """Takes 0.02 s and 0.3 s vectorised; the bound leaves room for a busy machine."""
    labels = balanced(10, 100_000)
    start = time.perf_counter()
    partition = deal(labels, spec, 100_000)
    assert time.perf_counter() - start < 10
    assert covers(partition, len(labels))
