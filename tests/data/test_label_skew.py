"""Label skew: Dirichlet, classes, mixed and shards."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partitions import balanced, covers, deal, held, is_disjoint

from spatl_ray import config
from spatl_ray.data.heterogeneity import class_counts, distances
from spatl_ray.errors import ConfigError, DataError

LAWS = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)


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
    counts = held(partition, labels)
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


def mean_distance(spec: config.Partition) -> float:
    """Mean earth mover's distance over 10 clients and 10 seeds; 2,000 samples of 10 classes."""
    labels = balanced(10, 200)
    deals = [deal(labels, spec, 10, seed) for seed in range(10)]
    return float(np.mean([distances(class_counts(each, labels, 10)) for each in deals]))


def test_dirichlet_and_mixed_heterogeneity_falls_with_beta() -> None:
    """At beta 0.05 clients hold few classes. In the limit all cuts are equal: more even than chance.

    At beta 500 a share of a class varies by 1 / sqrt(500) = 4.5 % around 0.1, in the mean by
    sqrt(2 / pi) of it: ten of them give a distance of 0.036. Of 200 samples by chance a class is
    200 +- sqrt(200 * 0.1 * 0.9) = 4.24: a distance of 10 sqrt(2 / pi) 4.24 / 200 = 0.17.
    """
    found = [mean_distance(config.Dirichlet(beta=b, min_size=1)) for b in (0.05, 0.5, 5, 500)]
    assert found[0] > found[1] + 0.3 > found[2] + 0.6 > found[3] + 0.8
    assert found[0] > 1.2
    assert found[3] == pytest.approx(0.036, rel=0.15)
    assert mean_distance(config.Iid()) == pytest.approx(0.17, rel=0.1)
    # In `mixed` even equal cuts leave two classes a client, 1.6 from the whole's ten.
    mixed = [mean_distance(config.Mixed(beta=b)) for b in (0.05, 500)]
    assert mixed[0] > mixed[1] + 0.02
    assert mixed[1] == pytest.approx(1.6, abs=0.01)


def test_an_endless_beta_cuts_every_class_equally() -> None:
    counts = held(deal(balanced(10, 200), config.Dirichlet(beta=1e12), 10), balanced(10, 200))
    assert np.abs(counts - 20).max() <= 1


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
    counts = held(partition, labels)
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


@LAWS
@given(
    each=st.lists(st.integers(5, 40), min_size=2, max_size=6),
    beta=st.floats(0.5, 100),
    data=st.data(),
    seed=seeds,
)
def test_mixed_gives_two_classes_a_client(
    each: list[int], beta: float, data: st.DataObject, seed: int
) -> None:
    """Client i holds samples, of two classes at most, of class i mod C and another one."""
    clients = data.draw(st.integers(1, min(each)))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(each)), each))
    try:
        partition = deal(labels, config.Mixed(beta=beta), clients, seed)
    except DataError:
        assert beta < 5  # With equal cuts each owner of a class has a sample of it.
        return
    counts = held(partition, labels)
    assert is_disjoint(partition, len(labels))
    assert partition.sizes.min() >= 1
    assert ((counts > 0).sum(axis=0) <= 2).all()
    for row, total in zip(counts, each, strict=True):
        assert row.sum() in (0, total)
    if clients >= len(each):
        assert covers(partition, len(labels))


def test_mixed_gives_client_i_class_i_and_another_one() -> None:
    """With a large beta both are certain to hold samples; the first class's owner is known."""
    labels = balanced(10, 100)
    counts = held(deal(labels, config.Mixed(beta=100.0), 20), labels)
    assert ((counts > 0).sum(axis=0) == 2).all()
    assert (counts[np.arange(20) % 10, np.arange(20)] > 0).all()


def test_mixed_cuts_a_class_by_the_distribution() -> None:
    """Two clients of two classes own both: a share is Dir(beta 1_2), beta = 2, of variance

    (1/2)(1/2) / (2 beta + 1) = 0.05. The relative error of 1,000 draws is near 4.5 %.
    """
    labels = np.repeat([0, 1], 500)
    deals = [deal(labels, config.Mixed(beta=2.0), 2, seed) for seed in range(1000)]
    shares = np.array([(labels[each.client(0)] == 0).sum() for each in deals]) / 500
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(0.05, rel=0.2)


def test_mixed_redraws_until_each_client_holds_a_sample() -> None:
    """At beta 0.5 some of 10 draws leave one of the 20 clients of 500 samples without any."""
    for seed in range(10):
        assert deal(balanced(5, 100), config.Mixed(beta=0.5), 20, seed).sizes.min() >= 1


def test_a_hopeless_mixed_names_beta_and_clients() -> None:
    with pytest.raises(DataError, match=r"mixed: none.*beta=0\.01 over clients=50.*raise beta"):
        deal(balanced(5, 100), config.Mixed(beta=0.01), 50)


def test_mixed_needs_two_classes() -> None:
    with pytest.raises(ConfigError, match=r"mixed.*at least 2, got 1"):
        deal(np.zeros(10, np.int64), config.Mixed(), 2)


@LAWS
@given(
    each=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    data=st.data(),
    k=st.integers(1, 4),
    seed=seeds,
)
def test_shards_are_equal_and_hold_few_classes(
    each: list[int], data: st.DataObject, k: int, seed: int
) -> None:
    """k shards of L samples or one fewer, each a run of the sorted labels.

    A run of L over t classes holds t - 2 of them whole and a sample of the first and of the last:
    L >= (t - 2) m + 2, m the smallest class's size.
    """
    k = min(k, sum(each))
    clients = data.draw(st.integers(1, sum(each) // k))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(each)), each))
    partition = deal(labels, config.Shards(k=k), clients, seed)
    assert covers(partition, len(labels))
    shortest, longest = len(labels) // (clients * k), -(-len(labels) // (clients * k))
    assert k * shortest <= partition.sizes.min() <= partition.sizes.max() <= k * longest
    bound = k * (2 + (longest - 2) // min(each) if longest > 1 else 1)
    assert (held(partition, labels) > 0).sum(axis=0).max() <= bound


def test_shards_of_whole_parts_of_classes_give_k_classes_at_most() -> None:
    """McMahan et al.: 600 samples in 2 of 200 shards a client; a shard is of one class."""
    labels = balanced(10, 60)
    partition = deal(labels, config.Shards(k=2), 50)
    assert partition.sizes.tolist() == [12] * 50
    found = (held(partition, labels) > 0).sum(axis=0)
    assert set(found.tolist()) == {1, 2}
    assert np.isin(held(partition, labels), [0, 6, 12]).all()


def test_shards_are_dealt_at_random() -> None:
    """Of k = 2 shards in 5 classes of 10 shards, a client's are of one class in 9 of 49 cases."""
    labels = balanced(5, 100)
    deals = [deal(labels, config.Shards(k=2), 25, seed) for seed in range(80)]
    alone = np.mean([(held(each, labels) > 0).sum(axis=0) == 1 for each in deals])
    assert alone == pytest.approx(9 / 49, abs=0.04)


def test_more_shards_than_samples_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"clients \* partition\.k must be at most 20.*got 7 \* 3"
    ):
        deal(balanced(2, 10), config.Shards(k=3), 7)


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
