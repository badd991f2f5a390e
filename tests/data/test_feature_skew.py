"""Feature skew: noise, octants of a cube, natural owners."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partitions import Integers, balanced, covers, deal, is_disjoint

from spatl_ray import config
from spatl_ray.data.partition import Partition
from spatl_ray.errors import ConfigError, DataError

LAWS = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**32 - 1)


def noisy(samples: int, clients: int, s: float, seed: int = 0, shape: tuple[int, ...] = (3, 4)):
    """Features and their partition with noise."""
    x = np.random.default_rng(1).normal(size=(samples, *shape)).astype(np.float32)
    spec = config.FeatureNoise(s=s)
    return x, deal(np.zeros(samples, np.int64), spec, clients, seed, features=x)


def seen(x: np.ndarray, partition: Partition, client: int, indices: Integers) -> np.ndarray:
    assert partition.transform is not None
    return partition.transform(client, indices, x[indices])


def test_noise_has_the_stated_deviation() -> None:
    """s i / (n - 1) = 0, 0.3, 0.6, 0.9; each estimate is from 60,000 values, so good to 1 %."""
    x, partition = noisy(20_000, 4, s=0.9)
    for client in range(4):
        own = partition.client(client)
        noise = seen(x, partition, client, own).astype(np.float64) - x[own]
        assert noise.std() == pytest.approx(0.3 * client, rel=0.02, abs=1e-12)
        assert abs(noise.mean()) < 0.02


@LAWS
@given(samples=st.integers(2, 60), data=st.data(), seed=seeds)
def test_noise_of_a_sample_is_the_same_however_it_is_asked_for(
    samples: int, data: st.DataObject, seed: int
) -> None:
    """Any part, in any order, on any worker: what a pickled copy gives."""
    clients = data.draw(st.integers(1, samples))
    client = data.draw(st.integers(0, clients - 1))
    x, partition = noisy(samples, clients, 0.5, seed, shape=(2,))
    assert covers(partition, samples)
    assert np.ptp(partition.sizes) <= 1
    own = partition.client(client)
    whole = dict(zip(own.tolist(), seen(x, partition, client, own), strict=True))
    some = np.array(data.draw(st.lists(st.sampled_from(own.tolist()), min_size=1)))
    copy = pickle.loads(pickle.dumps(partition))
    for each in (partition, copy):
        again = seen(x, each, client, some)
        assert again.dtype == np.float32
        assert np.array_equal(again, np.array([whole[i] for i in some.tolist()]))


def test_noise_differs_between_samples_clients_and_seeds() -> None:
    x, first = noisy(300, 3, s=1.0, seed=1)
    _, second = noisy(300, 3, s=1.0, seed=2)
    noise = [seen(x, p, 2, p.client(2)) - x[p.client(2)] for p in (first, second)]
    other = seen(x, first, 1, first.client(1)) - x[first.client(1)]
    assert len({row.tobytes() for row in np.concatenate([*noise, 2 * other])}) == 300


def test_noise_leaves_the_features_of_the_data_set_alone() -> None:
    x, partition = noisy(20, 2, s=1.0)
    before = x.copy()
    seen(x, partition, 1, partition.client(1))
    assert np.array_equal(x, before)


@pytest.mark.parametrize(("clients", "s"), [(1, 0.5), (3, 0.0)])
def test_an_only_client_and_no_deviation_mean_no_noise(clients: int, s: float) -> None:
    x, partition = noisy(9, clients, s)
    for client in range(clients):
        own = partition.client(client)
        assert np.array_equal(seen(x, partition, client, own), x[own])


def test_noise_on_token_ids_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"partition\.name.*feature_noise.*real features.*int64"):
        deal(balanced(2, 4), config.FeatureNoise(), 2, features=np.ones((8, 3), np.int64))


def cube(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (samples, 3)).astype(np.float32)


@LAWS
@given(samples=st.integers(200, 400), seed=seeds)
def test_fcube_gives_each_client_an_octant_and_its_mirror(samples: int, seed: int) -> None:
    """The client of x is that of -x; no two pairs of octants share a client."""
    x = cube(samples, seed)
    labels = (x[:, 0] > 0).astype(np.int64)
    partition = deal(labels, config.Fcube(), 4, features=x)
    assert covers(partition, samples)
    octants = [np.unique(np.sign(x[partition.client(i)]), axis=0) for i in range(4)]
    for pair in octants:
        assert pair.shape == (2, 3)
        assert np.array_equal(pair[0], -pair[1])
    assert len(np.unique(np.concatenate(octants), axis=0)) == 8


def test_fcube_clients_hold_both_labels() -> None:
    x = cube(400)
    labels = (x[:, 0] > 0).astype(np.int64)
    partition = deal(labels, config.Fcube(), 4, features=x)
    assert all(set(labels[partition.client(i)].tolist()) == {0, 1} for i in range(4))


def test_fcube_names_everything_that_does_not_fit() -> None:
    with pytest.raises(ConfigError) as caught:
        deal(balanced(2, 10), config.Fcube(), 5, features=np.zeros((20, 1, 8, 8), np.float32))
    clients, shape = caught.value.faults
    assert clients.startswith("clients must be 4 with partition fcube")
    assert clients.endswith("got 5")
    assert "shape (3,) with partition fcube" in shape
    assert shape.endswith("got shape (1, 8, 8)")


def test_fcube_with_an_empty_octant_pair_is_an_error() -> None:
    x = np.abs(cube(40))
    with pytest.raises(DataError, match=r"left 3 of 4 clients with no sample"):
        deal(balanced(2, 20), config.Fcube(), 4, features=x)


@LAWS
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    min_size=st.integers(1, 4),
    data=st.data(),
    seed=seeds,
)
def test_writers_keep_owners_whole(
    sizes: list[int], min_size: int, data: st.DataObject, seed: int
) -> None:
    large = sum(size >= min_size for size in sizes)
    groups = np.random.default_rng(seed).permutation(np.repeat(7 * np.arange(len(sizes)), sizes))
    spec = config.Writers(min_size=min_size)
    clients = data.draw(st.integers(1, max(1, min(large, len(groups)))))
    labels = np.zeros(len(groups), np.int64)
    if not large:
        with pytest.raises(ConfigError, match="clients must be at most 0"):
            deal(labels, spec, clients, seed, groups=groups)
        return
    partition = deal(labels, spec, clients, seed, groups=groups)
    assert is_disjoint(partition, len(groups))
    owners = [np.unique(groups[partition.client(i)]) for i in range(clients)]
    assert all(len(owner) == 1 for owner in owners)
    ids = np.concatenate(owners)
    assert (np.diff(ids) > 0).all()
    assert partition.sizes.tolist() == [sizes[i // 7] for i in ids]
    assert partition.sizes.min() >= min_size
    assert clients < len(sizes) or covers(partition, len(groups))


def test_writers_draws_all_owners_equally_often() -> None:
    """3 of 10 owners: each in 300 of 1,000 draws, deviation sqrt(1000 * 0.3 * 0.7) = 14.5."""
    groups = np.repeat(np.arange(10), 2)
    labels = np.zeros(20, np.int64)
    drawn = [deal(labels, config.Writers(), 3, seed, groups=groups).indices for seed in range(1000)]
    assert np.abs(np.bincount(np.concatenate(drawn) // 2) / 2 - 300).max() < 75


def test_writers_without_natural_owners_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"partition\.name.*'writers'.*femnist and shakespeare"):
        deal(balanced(2, 4), config.Writers(), 2)


def test_too_few_writers_are_refused() -> None:
    groups = np.repeat([4, 5, 6], [3, 1, 3])
    match = r"clients must be at most 2, .*partition\.min_size=2 samples, got 3"
    with pytest.raises(ConfigError, match=match):
        deal(np.zeros(7, np.int64), config.Writers(min_size=2), 3, groups=groups)
