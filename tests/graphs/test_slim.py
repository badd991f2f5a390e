"""The smaller network gives what the masked one gives, on its own tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from graph_models import NETWORKS, case, check_slim, network, some_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spatl_ray.errors import ModelError
from spatl_ray.graphs.slim import slim

TORCHVISION = [
    pytest.param(f"torchvision.{name}", marks=pytest.mark.slow)
    for name in ("resnet18", "densenet121", "mobilenet_v2", "mobilenet_v3_small")
]


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_a_smaller_network_equals_the_masked_one(
    name: str, options: dict[str, Any], seed: int
) -> None:
    own = case(name, options)
    check_slim(own, some_bits(own, seed), 1e-10)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_what_is_removed_matters(name: str, options: dict[str, Any]) -> None:
    """Else the law above would hold of networks that give the same whatever is removed."""
    own = case(name, options)
    drawn = [some_bits(own, seed) for seed in range(20)]
    bits = min(drawn, key=lambda each: own.coupling.closed(each).sum())
    with torch.no_grad():
        whole = own.model.module(own.samples(3))
    assert (check_slim(own, bits, 1e-10) - whole).abs().max() > 1e-3 * whole.abs().max()


@pytest.mark.parametrize("name", ["resnet20", "vgg11", "cnn"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=3)
def test_in_single_precision(name: str, seed: int) -> None:
    own = network(name, dtype=torch.float32, width=4)
    check_slim(own, some_bits(own, seed), 1e-5)


@pytest.mark.parametrize("name", ["torchvision.squeezenet1_1", *TORCHVISION])
def test_torchvisions_networks(name: str) -> None:
    own = network(name, (3, 32, 32))
    bits = some_bits(own, 0)
    check_slim(own, bits, 1e-10)
    assert own.coupling.closed(bits).mean() < 0.9


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_with_all_channels_it_is_a_copy(name: str, options: dict[str, Any]) -> None:
    own = case(name, options)
    x = own.samples(2)
    copied = slim(own.graph, own.coupling, np.ones(len(own.coupling.labels), dtype=np.bool_))
    with torch.no_grad():
        assert torch.equal(copied(x), own.model.module(x))
    state = own.model.module.state_dict()
    assert copied.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in copied.state_dict().items())


@pytest.mark.parametrize("everything", [False, True])
def test_its_tensors_are_small_and_its_own(everything: bool) -> None:
    own = network("resnet20", width=4)
    bits = some_bits(own, 3) | everything
    small = slim(own.graph, own.coupling, bits)
    before = own.model.read()
    for name, tensor in small.state_dict().items():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name
        tensor.zero_()
    assert np.array_equal(own.model.read().parameters, before.parameters)
    assert np.array_equal(own.model.read().buffers, before.buffers)
    assert all(p.grad is None for p in small.parameters())
    assert not any(m.training for m in small.modules())


def test_it_follows_the_values_that_are_loaded() -> None:
    own = network("lenet")
    bits = some_bits(own, 4)
    before = own.model.read()
    first = check_slim(own, bits, 1e-10)
    own.model.load(replace(before, parameters=1.5 * before.parameters))
    assert not torch.allclose(check_slim(own, bits, 1e-10), first)
    own.model.load(before)


def test_the_layers_say_their_new_sizes() -> None:
    own = network("lenet", norm="batch")
    bits = np.zeros(22, dtype=np.bool_)
    bits[[0, 4, 6, 10, 21]] = True
    small = slim(own.graph, own.coupling, bits)
    first, norm = small.get_submodule("encoder.0"), small.get_submodule("encoder.1")
    second, linear = small.get_submodule("encoder.4"), small.get_submodule("predictor.1")
    assert (first.in_channels, first.out_channels, norm.num_features) == (1, 2, 2)
    assert (second.in_channels, second.out_channels) == (2, 3)
    assert (linear.in_features, linear.out_features) == (3, 120)
    before = dict(own.model.module.named_parameters())["encoder.4.weight"]
    assert torch.equal(second.weight, before[[0, 4, 15]][:, [0, 4]])


def test_it_can_be_trained() -> None:
    own = network("resnet20", width=4)
    small = slim(own.graph, own.coupling, some_bits(own, 5)).train()
    small(own.samples(4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in small.parameters())
    assert not any(m.training for m in own.model.module.modules())


@pytest.mark.parametrize(
    ("name", "options"),
    [("lenet", {}), pytest.param("resnet20", {"width": 4}, marks=pytest.mark.slow)],
)
def test_it_is_exported_for_any_batch(name: str, options: dict[str, Any]) -> None:
    own = network(name, **options)
    small = slim(own.graph, own.coupling, some_bits(own, 6))
    batch = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(small, (own.samples(2),), dynamic_shapes=batch)
    with torch.no_grad():
        for count in (1, 5):
            x = own.samples(count)
            assert torch.allclose(program.module()(x), small(x), rtol=1e-12)
    assert program.state_dict.keys() == small.state_dict().keys()


def test_a_layer_without_channels_is_refused() -> None:
    own = network("lenet")
    bits = np.ones(22, dtype=np.bool_)
    bits[6:] = False
    with pytest.raises(
        ModelError,
        match=r"^bits must keep at least one channel of each layer, got none of encoder.3$",
    ):
        slim(own.graph, own.coupling, bits)


def test_a_mask_of_another_network_is_refused() -> None:
    own = network("lenet")
    with pytest.raises(ModelError, match=r"bits must have one value a channel, shape \(22,\), got"):
        slim(own.graph, own.coupling, np.ones(21, dtype=np.bool_))


def test_a_recurrent_network_stays_whole() -> None:
    own = network("char_lstm", (6,), token_ids=10, hidden=4)
    assert (own.coupling.labels == -1).all()
    bits = np.zeros(len(own.coupling.labels), dtype=np.bool_)
    x = own.samples(3)
    with torch.no_grad():
        assert torch.equal(slim(own.graph, own.coupling, bits)(x), own.model.module(x))
    assert isinstance(slim(own.graph, own.coupling, bits).get_submodule("encoder.lstm"), nn.LSTM)
