"""Clients' samples as training gets them."""

from __future__ import annotations

import numpy as np
import own_partitions
import pytest
import torch

from spatl_ray.data.dataset import Dataset
from spatl_ray.data.dealing import Transform
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.population import Population
from spatl_ray.errors import PluginError


def population(transform: Transform) -> Population:
    """Two clients of three samples each, all for training."""
    x, y = np.arange(6, dtype=np.float32)[:, None], np.zeros(6, np.int64)
    data = Dataset("six", x, y, x, y, 1)
    bounds = np.array([[0, 3, 3, 3], [3, 6, 6, 6]])
    order = np.array([4, 2, 0, 1, 3, 5])
    federated = FederatedData(data, order, bounds, transform)
    return Population(federated, torch.device("cpu"), torch.float32, None, 0)


def test_a_client_sees_its_samples_through_the_transform() -> None:
    x, y = population(own_partitions.double).samples(1, "train")
    assert x.flatten().tolist() == [2, 6, 10]
    assert y.tolist() == [0, 0, 0]


@pytest.mark.parametrize("function", ["shuffle_indices", "double_in_place"])
def test_a_transform_that_writes_is_refused(function: str) -> None:
    """The indices are those of all rounds to come."""
    clients = population(getattr(own_partitions, function))
    with pytest.raises(
        PluginError, match=f"partition transform 'own_partitions:{function}' raised"
    ):
        clients.samples(0, "train")
    assert clients.data.order.tolist() == [4, 2, 0, 1, 3, 5]


def test_a_transform_may_give_back_what_it_got() -> None:
    x, _ = population(lambda client, indices, features: features).samples(0, "train")
    assert x.flatten().tolist() == [4, 2, 0]
