"""Costs are those of the network that is really built without the channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from graph_models import NETWORKS, Traced, case, network, some_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spatl_ray.arrays import Bits
from spatl_ray.graphs.cost import Cost
from spatl_ray.graphs.slim import slim


def counted(own: Traced, module: nn.Module) -> int:
    """FLOPs of one sample, by torch's counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(own.samples(1))
    return int(counter.get_total_flops())


def only(own: Traced, layer: str, kept: list[int]) -> Bits:
    """All channels but those of one layer, of which some are kept."""
    bits = np.ones(len(own.coupling.labels), dtype=np.bool_)
    (group,) = (g for g in own.graph.groups if g.name == layer)
    bits[group.offset : group.offset + group.channels] = False
    bits[group.offset + np.array(kept)] = True
    return bits


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=4)
def test_costs_are_those_of_the_smaller_network(
    name: str, options: dict[str, Any], seed: int
) -> None:
    own = case(name, options)
    cost, bits = Cost(own.graph), some_bits(own, seed)
    small = slim(own.graph, own.coupling, bits)
    assert cost.flops(bits) == counted(own, small)
    assert cost.parameters(bits) == sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize(("name", "options"), [*NETWORKS, ("char_lstm", {})])
def test_all_channels_cost_what_the_network_does(name: str, options: dict[str, Any]) -> None:
    is_text = name == "char_lstm"
    own = network(name, (6,), token_ids=10) if is_text else case(name, options)
    cost, bits = Cost(own.graph), np.ones(len(own.coupling.labels), dtype=np.bool_)
    assert cost.flops(bits) == cost.dense_flops
    assert cost.parameters(bits) == cost.dense_parameters
    assert cost.dense_parameters == sum(p.numel() for p in own.model.module.parameters())


@given(st.integers(0, 2**32 - 1))
def test_more_channels_cost_more(seed: int) -> None:
    own = network("resnet20", width=4)
    cost, few = Cost(own.graph), some_bits(own, seed)
    many = few | some_bits(own, seed + 1)
    assert cost.flops(few) <= cost.flops(many)
    assert cost.parameters(few) <= cost.parameters(many)


def test_a_plain_network_by_hand() -> None:
    """LeNet on 16x16: 5x5 to a channels on 12x12, 5x5 to b on 2x2, then b-120-84-10."""
    own = network("lenet")
    cost = Cost(own.graph)
    bits = np.zeros(22, dtype=np.bool_)
    bits[[1, 2, 5]] = bits[[6, 7, 8, 20]] = True
    a, b = 3, 4
    multiplications = 144 * 25 * a + 4 * 25 * a * b + b * 120 + 120 * 84 + 84 * 10
    assert cost.flops(bits) == 2 * multiplications
    assert cost.parameters(bits) == 26 * a + (25 * a + 1) * b + (b + 1) * 120 + 121 * 84 + 850


def test_removing_inside_a_residual_block_saves_both_convolutions() -> None:
    own = network("resnet20", width=4)
    cost = Cost(own.graph)
    bits = only(own, "encoder.3.conv1", [0, 2])
    assert cost.dense_flops - cost.flops(bits) == 2 * (256 * 9 * 4 * 2) * 2
    assert cost.dense_parameters - cost.parameters(bits) == 2 * 9 * 4 * 2 + 2 * 2


def test_channels_that_a_residual_sum_keeps_alive_save_nothing() -> None:
    own = network("resnet20", width=4)
    cost = Cost(own.graph)
    for layer in ("encoder.0", "encoder.3.conv2", "encoder.11.conv2"):
        bits = only(own, layer, [0])
        assert cost.flops(bits) == cost.dense_flops
        assert cost.parameters(bits) == cost.dense_parameters
    # Only if all layers that are summed drop a channel is it gone, here the last one of stage 3.
    bits = np.ones(len(own.coupling.labels), dtype=np.bool_)
    for block in (9, 10, 11):
        bits &= only(own, f"encoder.{block}.conv2", list(range(15)))
    assert cost.flops(bits) < cost.dense_flops
    assert cost.dense_flops - cost.flops(bits) == counted(own, own.model.module) - counted(
        own, slim(own.graph, own.coupling, bits)
    )


def test_features_behind_a_flattening_count_one_by_one() -> None:
    """cnn on 16x16 with 8 channels of 4x4 before its hidden layer of 8."""
    own = network("cnn", width=4, hidden=8)
    cost = Cost(own.graph)
    bits = only(own, "encoder.3", [0, 1, 2])
    linear = 5 * 16 * 8
    convolution = 25 * 4 * 5
    assert cost.dense_parameters - cost.parameters(bits) == linear + convolution + 5
    assert cost.dense_flops - cost.flops(bits) == 2 * (linear + 64 * convolution)


def test_a_network_without_prunable_layers_has_one_cost() -> None:
    own = network("mlp", hidden=())
    cost = Cost(own.graph)
    none = np.zeros(0, dtype=np.bool_)
    assert (cost.flops(none), cost.parameters(none)) == (2 * 2560, 2570)
