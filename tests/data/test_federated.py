"""Federated data: disjoint and complete splits, sizes by rule, and what decides them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.config import (
    Classes,
    Data,
    Dirichlet,
    Experiment,
    FeatureNoise,
    Iid,
    Mixed,
    Quantity,
    Shards,
    Split,
)
from spatl_ray.data.datasets import Dataset
from spatl_ray.data.federated import SPLITS, FederatedData, SplitName, federate
from spatl_ray.errors import ConfigError, DataError


def dataset(samples: int, classes: int = 4) -> Dataset:
    """Each sample's feature is its own index."""
    x = np.arange(samples, dtype=np.float32)[:, np.newaxis]
    y = np.arange(samples) % classes
    return Dataset("counted", x, y, x[:1], y[:1], classes)


def dealt(samples: int = 200, clients: int = 10, **changes: Any) -> FederatedData:
    settings_ = {"partition": Iid(), "clients": clients} | changes
    return federate(dataset(samples), Experiment(**settings_))


hundredths = st.integers(1, 100).flatmap(
    lambda train: st.tuples(st.just(train), st.integers(0, 100 - train))
)


@settings(deadline=None, max_examples=60)
@given(
    samples=st.integers(1, 400),
    data=st.data(),
    fractions=hundredths,
    seed=st.integers(0, 2**32 - 1),
)
def test_splits_are_disjoint_complete_and_of_the_stated_size(
    samples: int, data: st.DataObject, fractions: tuple[int, int], seed: int
) -> None:
    """Exact law in integers: floor(size * hundredths / 100) each, the remainder to train."""
    clients = data.draw(st.integers(1, samples))
    train, validation = fractions
    test = 100 - train - validation
    split = Split(train=train / 100, validation=validation / 100, test=test / 100)
    federated = dealt(samples, clients, data=Data(split=split), seed=seed)
    everyone = [federated.indices(i, split) for i in range(clients) for split in SPLITS]
    assert np.array_equal(np.sort(np.concatenate(everyone)), np.arange(samples))
    sizes = samples // clients + (np.arange(clients) < samples % clients)
    assert np.array_equal(federated.sizes("validation"), sizes * validation // 100)
    assert np.array_equal(federated.sizes("test"), sizes * test // 100)
    assert np.array_equal(sum(federated.sizes(split) for split in SPLITS), sizes)
    assert federated.sizes("train").min() >= 1
    for name in SPLITS:
        lengths = [len(federated.indices(i, name)) for i in range(clients)]
        assert lengths == federated.sizes(name).tolist()


def test_rounding_does_not_lose_a_sample() -> None:
    """0.29 * 100 is 28.999999999999996 in floating point."""
    split = Split(train=0.5, validation=0.29, test=0.21)
    assert dealt(1000, 10, data=Data(split=split)).sizes("validation").tolist() == [29] * 10


def test_everything_can_be_training() -> None:
    federated = dealt(data=Data(split=Split(train=1.0, validation=0.0, test=0.0)))
    assert federated.sizes("train").tolist() == [20] * 10
    assert not federated.sizes("validation").any()
    assert not federated.sizes("test").any()


@pytest.mark.parametrize(
    "partition",
    [
        Iid(),
        Dirichlet(min_size=2),
        Classes(k=2),
        Quantity(min_size=2),
        Mixed(beta=5.0),
        Shards(k=2),
        FeatureNoise(),
    ],
    ids=lambda spec: spec.name,
)
def test_clients_keep_what_the_partition_gave_them(partition: Any) -> None:
    """The split shuffles inside clients only, whatever its fractions."""
    thirds = Data(split=Split(train=0.4, validation=0.3, test=0.3))
    first, second = dealt(partition=partition), dealt(partition=partition, data=thirds)
    for client in range(first.clients):
        own = [np.concatenate([f.indices(client, s) for s in SPLITS]) for f in (first, second)]
        assert np.array_equal(np.sort(own[0]), np.sort(own[1]))


def test_splits_are_random_inside_a_client() -> None:
    """Classes are dealt in order; the last tenth of a client must still hold several of them."""
    federated = dealt(2000, 2, partition=Dirichlet(beta=100.0))
    for split in SPLITS:
        labels = federated.dataset.train_y[federated.indices(0, split)]
        assert np.abs(np.bincount(labels, minlength=4) / len(labels) - 0.25).max() < 0.15


def test_the_seed_decides() -> None:
    assert dealt(seed=1).fingerprint == dealt(seed=1).fingerprint
    assert dealt(seed=1).fingerprint != dealt(seed=2).fingerprint


def test_the_fingerprint_covers_data_order_and_bounds() -> None:
    base = dealt()
    changed = [
        replace(base, order=base.order[::-1]),
        replace(base, bounds=base.bounds[:-1]),
        replace(base, dataset=dataset(201)),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in changed)}) == 4


def seen(federated: FederatedData, client: int, split: SplitName) -> dict[int, bytes]:
    """What a client sees of each of its samples in a split."""
    assert federated.transform is not None
    indices = federated.indices(client, split)
    features = federated.transform(client, indices, federated.dataset.train_x[indices])
    return {i: row.tobytes() for i, row in zip(indices.tolist(), features, strict=True)}


def test_what_clients_see_does_not_depend_on_the_split() -> None:
    """The noise goes with the sample, wherever the split puts it."""
    halves = Data(split=Split(train=0.5, validation=0.25, test=0.25))
    spec = FeatureNoise(s=1.0)
    for client in range(10):
        first, second = (
            {
                sample: row
                for split in SPLITS
                for sample, row in seen(federated, client, split).items()
            }
            for federated in (dealt(partition=spec), dealt(partition=spec, data=halves))
        )
        assert len(first) == 20
        assert first == second


def first_half(client: int, indices: np.ndarray, features: np.ndarray) -> np.ndarray:
    return features / 2


def test_the_fingerprint_covers_what_clients_see() -> None:
    """An own transform counts by its name; its options are part of the experiment's hash."""
    noisy = dealt(partition=FeatureNoise(s=1.0))
    changed = [
        dealt(partition=FeatureNoise(s=2.0)),
        replace(noisy, transform=None),
        replace(noisy, transform=first_half),
        replace(noisy, transform=partial(first_half)),
    ]
    assert len({noisy.fingerprint, *(other.fingerprint for other in changed)}) == 5
    assert dealt(partition=FeatureNoise(s=1.0)).fingerprint == noisy.fingerprint


@pytest.mark.parametrize("partition", [Iid(), FeatureNoise()], ids=lambda spec: spec.name)
def test_it_survives_pickling(partition: Any) -> None:
    federated = dealt(partition=partition)
    again = pickle.loads(pickle.dumps(federated))
    assert again.fingerprint == federated.fingerprint
    if federated.transform is not None:
        assert seen(again, 9, "train") == seen(federated, 9, "train")


@pytest.mark.parametrize("client", [-1, 10])
def test_a_client_that_does_not_exist_is_an_error(client: int) -> None:
    with pytest.raises(DataError, match=rf"client must be in \[0, 10\), got {client}"):
        dealt().indices(client, "train")


def test_a_client_without_training_samples_is_an_error() -> None:
    """Fractions may miss 1 by 1e-9, so that halves can use up a client of two samples."""
    split = Split(train=1e-12, validation=0.5, test=0.5)
    with pytest.raises(DataError, match=r"train=0, validation=1, test=1 of 2 samples for client 0"):
        dealt(20, 10, data=Data(split=split))


def test_more_clients_than_samples_is_refused() -> None:
    with pytest.raises(ConfigError, match="clients must be at most 20"):
        dealt(20, 21)


def test_a_tiny_client_may_lack_a_split() -> None:
    federated = dealt(30, 10)
    assert federated.sizes("train").tolist() == [3] * 10
    assert federated.indices(0, "test").size == 0
