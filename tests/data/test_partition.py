"""Every partition: the contract that all of them keep, their bits, and their speed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from partitions import balanced, deal, is_disjoint

from spatl_ray import config
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import digest
from spatl_ray.data.partition import PARTITIONERS, Partition
from spatl_ray.errors import ConfigError, DataError
from spatl_ray.fields import OWN, kinds

CLIENTS = 4

SPECS = [
    config.Iid(),
    config.Dirichlet(beta=0.5),
    config.Classes(k=2),
    config.Quantity(beta=0.5),
    config.Mixed(beta=0.5),
    config.Shards(k=2),
    config.FeatureNoise(),
    config.Fcube(),
    config.Writers(),
]
each_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def dealt(spec: config.Partition, seed: int = 0) -> Partition:
    """500 points of a cube by 8 owners, of 10 classes, to 4 clients."""
    groups = np.arange(500) * 8 // 500
    # One octant after the other, at the points (+-1/2, +-1/2, +-1/2).
    axes = (np.arange(500)[:, None] // np.array([1, 2, 4]) % 2 - 0.5).astype(np.float32)
    return deal(balanced(10, 50), spec, CLIENTS, seed, features=axes, groups=groups)


def test_every_partition_of_the_config_is_known() -> None:
    known = set(kinds(Experiment.model_fields["partition"])) - {OWN}
    assert set(PARTITIONERS) == known == {spec.name for spec in SPECS}


@each_spec
def test_the_seed_decides(spec: config.Partition) -> None:
    first, again, other = (dealt(spec, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.indices, again.indices)
    assert np.array_equal(first.offsets, again.offsets)
    # Octants leave nothing to chance.
    assert np.array_equal(first.indices, other.indices) == (spec.name == "fcube")


BITS = {
    "iid": "161de07bd999d8b3",
    "dirichlet": "a33ae91279417411",
    "classes": "33952949b876cf4a",
    "quantity": "24e8a71778d74ddb",
    "mixed": "c0dc166a933ede33",
    "shards": "f15a61d92f097161",
    "feature_noise": "28886046a27ddf52",
    "fcube": "022463c0f2e814a3",
    "writers": "d895d6184437d894",
}


@each_spec
def test_bits_are_those_of_other_machines(spec: config.Partition) -> None:
    """Recorded from seed 7 with NumPy 2.4 (1.26 gave the same) on x86-64: bits are for all machines."""
    partition = dealt(spec, seed=7)
    assert digest(partition.indices, partition.offsets) == BITS[spec.name]


def test_the_bits_of_noise_are_those_of_other_machines() -> None:
    """As above; in float32, of features of zero, for the last of the clients."""
    partition = dealt(config.FeatureNoise(s=1.0), seed=7)
    own = partition.client(3)
    assert partition.transform is not None
    noise = partition.transform(3, own, np.zeros((len(own), 3), np.float32))
    assert digest(noise) == "974f25e2043de1b3"


@each_spec
def test_clients_are_disjoint_slices_between_offsets(spec: config.Partition) -> None:
    partition = dealt(spec)
    assert partition.indices.dtype == partition.offsets.dtype == np.int64
    assert is_disjoint(partition, 500)
    own = [partition.client(i) for i in range(CLIENTS)]
    assert [len(indices) for indices in own] == partition.sizes.tolist()
    assert np.array_equal(np.concatenate(own), partition.indices)


@pytest.mark.parametrize("client", [-1, 8])
def test_a_client_that_does_not_exist_is_an_error(client: int) -> None:
    with pytest.raises(DataError, match=rf"client must be in \[0, 8\), got {client}"):
        deal(balanced(2, 8), config.Iid(), 8).client(client)


@each_spec
def test_more_clients_than_samples_is_refused(spec: config.Partition) -> None:
    with pytest.raises(ConfigError, match=r"clients must be at most 10, .*got 11"):
        deal(balanced(2, 5), spec, 11)


@pytest.mark.parametrize(
    "spec",
    [
        config.Iid(),
        config.Dirichlet(beta=100.0, min_size=1),
        config.Classes(k=2),
        config.Quantity(beta=20.0, min_size=1),
        config.Mixed(beta=10.0),
        config.Shards(k=2),
        config.FeatureNoise(),
        config.Writers(),
    ],
    ids=lambda spec: spec.name,
)
def test_a_million_samples_over_100_000_clients(spec: config.Partition) -> None:
    """Takes 0.04 s to 0.5 s each; the bound leaves room for a busy machine."""
    samples, clients = 1_000_000, 100_000
    groups = np.arange(samples) % clients
    labels = balanced(10, samples // 10)
    start = time.perf_counter()
    partition = deal(labels, spec, clients, groups=groups)
    assert time.perf_counter() - start < 10
    assert len(partition.sizes) == clients
    assert (np.bincount(partition.indices, minlength=samples) == 1).all()
