"""Figures of heterogeneity against closed forms."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from partitions import balanced, deal, held

from spatl_ray.config import Classes, Data, Experiment, Iid, Split
from spatl_ray.data.datasets import Dataset
from spatl_ray.data.federated import federate
from spatl_ray.data.heterogeneity import (
    class_counts,
    distances,
    gini,
    held_counts,
    heterogeneity,
)

tables = st.tuples(st.integers(1, 8), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 50)).filter(
        lambda counts: counts.sum(axis=1).min() > 0
    )
)


def test_equal_clients_are_at_distance_0() -> None:
    assert distances(np.tile([3, 1, 2], (5, 1))).tolist() == [0] * 5


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_one_class_each_is_at_distance_2_1_minus_1_over_c(classes: int) -> None:
    """|1 - 1/C| + (C - 1) / C."""
    found = distances(7 * np.eye(classes, dtype=np.int64))
    assert found == pytest.approx(np.full(classes, 2 * (1 - 1 / classes)))


def test_the_distance_is_to_the_shares_of_all_samples_together() -> None:
    """Together 30 and 10, so 3/4 and 1/4; the clients have 1, 0 and 1/3, 2/3."""
    assert distances(np.array([[25, 0], [5, 10]])) == pytest.approx([1 / 2, 5 / 6])


@given(counts=tables)
def test_distances_keep_their_bounds_and_ignore_who_is_who(counts: np.ndarray) -> None:
    found = distances(counts)
    assert ((found >= 0) & (found <= 2)).all()
    assert distances(counts[::-1, ::-1]) == pytest.approx(found[::-1])
    assert distances(3 * counts) == pytest.approx(found)


def test_large_iid_clients_are_near_distance_0() -> None:
    """10 sqrt(2 / pi) sqrt(0.09 / 10,000) = 0.024."""
    labels = balanced(10, 10_000)
    found = heterogeneity(class_counts(deal(labels, Iid(), 10), labels, 10))
    assert found.distance_mean == pytest.approx(0.024, rel=0.25)
    assert found.gini == 0


def test_gini_of_equal_sizes_is_0() -> None:
    assert gini(np.full(7, 12)) == 0


@pytest.mark.parametrize("n", [1, 2, 10])
def test_gini_of_one_owner_of_all_is_n_minus_1_over_n(n: int) -> None:
    assert gini(np.array([0] * (n - 1) + [30])) == pytest.approx((n - 1) / n)


@given(sizes=st.lists(st.integers(0, 100), min_size=1, max_size=12).filter(any))
def test_gini_is_half_the_relative_mean_difference(sizes: list[int]) -> None:
    """The definition: sum_ij |x_i - x_j| / (2 n^2 mean)."""
    x = np.array(sizes)
    expected = np.abs(x[:, None] - x).sum() / (2 * len(x) ** 2 * x.mean())
    assert gini(x) == pytest.approx(expected, abs=1e-12)


def test_all_figures_of_a_small_case() -> None:
    """Together 8, 8, 0: shares 1/2, 1/2, 0. Sizes 1, 3, 4, 8: Gini (-3 - 3 + 4 + 24) / (4 * 16)."""
    found = heterogeneity(np.array([[1, 0, 0], [3, 0, 0], [2, 2, 0], [2, 6, 0]]))
    assert found.distance_mean == pytest.approx((1 + 1 + 0 + 1 / 2) / 4)
    assert found.distance_p90 == pytest.approx(1)
    assert found.gini == pytest.approx(22 / 64)
    assert (found.smallest, found.median, found.largest) == (1, 3.5, 8)
    assert found.classes_mean == 1.5


def test_counts_of_a_partition_are_who_holds_what() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 200)
    partition = deal(labels, Classes(k=2), 6)
    counts = class_counts(partition, labels, 7)
    assert counts.shape == (6, 7)
    assert np.array_equal(counts[:, :5].T, held(partition, labels))
    assert not counts[:, 5:].any()


def test_counts_of_federated_data_are_over_all_splits() -> None:
    """Three clients of two classes each: 60 samples, whatever their split."""
    x, y = np.zeros((60, 1), np.float32), balanced(3, 20)
    dataset = Dataset("zeros", x, y, x[:1], y[:1], 3)
    data = Data(split=Split(train=0.5, validation=0.3, test=0.2))
    federated = federate(dataset, Experiment(clients=3, partition=Classes(k=2), data=data))
    counts = held_counts(federated)
    assert counts.sum(axis=0).tolist() == [20, 20, 20]
    assert ((counts > 0).sum(axis=1) == 2).all()
    for client in range(3):
        own = np.concatenate(
            [federated.indices(client, s) for s in ("train", "validation", "test")]
        )
        assert counts[client].tolist() == np.bincount(y[own], minlength=3).tolist()


def test_a_million_samples_of_100_000_clients() -> None:
    """Takes 0.1 s; the bound leaves room for a busy machine."""
    labels = balanced(10, 100_000)
    partition = deal(labels, Iid(), 100_000)
    start = time.perf_counter()
    found = heterogeneity(class_counts(partition, labels, 10))
    assert time.perf_counter() - start < 5
    assert (found.smallest, found.largest) == (10, 10)
