"""Equal shares, and shares by a Dirichlet draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partitions import balanced, covers, deal

from spatl_ray import config
from spatl_ray.data.heterogeneity import class_counts, gini
from spatl_ray.errors import ConfigError, DataError

LAWS = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)


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
    samples=st.integers(1, 300),
    data=st.data(),
    beta=st.floats(0.05, 100),
    min_size=st.integers(1, 3),
    seed=seeds,
)
def test_quantity_covers_with_min_size(
    samples: int, data: st.DataObject, beta: float, min_size: int, seed: int
) -> None:
    clients = data.draw(st.integers(1, max(1, samples // 20)))
    spec = config.Quantity(beta=beta, min_size=min_size)
    try:
        partition = deal(np.zeros(samples, np.int64), spec, clients, seed)
    except (ConfigError, DataError):
        assert min_size * clients > samples or beta < 1
        return
    assert covers(partition, samples)
    assert len(partition.sizes) == clients
    assert partition.sizes.min() >= min_size


def test_quantity_shares_have_the_moments_of_the_distribution() -> None:
    """Dir(2 1_4): mean 1/4, variance (1/4)(3/4) / 9; 1,000 draws err by near 4.5 %."""
    spec = config.Quantity(beta=2.0, min_size=1)
    labels = np.zeros(10_000, np.int64)
    shares = np.array([deal(labels, spec, 4, seed).sizes for seed in range(1000)]) / 10_000
    assert shares.mean(axis=0) == pytest.approx(np.full(4, 0.25), abs=0.015)
    assert shares.var(axis=0) == pytest.approx(np.full(4, 0.1875 / 9), rel=0.2)


def test_quantity_skews_sizes_less_with_a_larger_beta_and_labels_never() -> None:
    labels = balanced(10, 1000)
    found = []
    for beta in (0.5, 5.0, 500.0):
        deals = [deal(labels, config.Quantity(beta=beta), 10, seed) for seed in range(10)]
        found.append(np.mean([gini(each.sizes) for each in deals]))
        largest = [class_counts(each, labels, 10)[np.argmax(each.sizes)] for each in deals]
        assert max(np.abs(row / row.sum() - 0.1).max() for row in largest) < 0.05
    assert found[0] > found[1] + 0.1 > found[2] + 0.2
    assert found[2] < 0.05


def test_quantity_redraws_until_min_size() -> None:
    """Few draws at beta 1 leave each of these ten clients 10 of 200 samples."""
    spec = config.Quantity(beta=1.0, min_size=5)
    assert all(deal(balanced(2, 100), spec, 10, seed).sizes.min() >= 5 for seed in range(10))


def test_a_min_size_of_quantity_above_equal_shares_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"partition\.min_size \* clients.*100.*11 \* 10"):
        deal(balanced(10, 10), config.Quantity(min_size=11), 10)


@pytest.mark.parametrize("beta", [1e-300, 0.01, 1e308])
def test_a_hopeless_quantity_names_beta_clients_and_min_size(beta: float) -> None:
    """All to one client, or shares of infinity by infinity."""
    with pytest.raises(DataError, match=r"quantity: none.*beta=.* over clients=10.*min_size=10"):
        deal(balanced(10, 100), config.Quantity(beta=beta), 10)
