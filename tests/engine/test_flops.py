"""Counted operations are those of closed forms: two a multiplication, forward and backward."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from flat_models import flatten, split_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.engine.flops import training_flops
from spatl_ray.graphs.flop_counter import FORMULAS
from spatl_ray.models.flat import FlatModel

pytestmark = pytest.mark.integration

CIFAR = (3, 32, 32)
aten = torch.ops.aten


def resnet_multiplications(blocks: int, width: int = 16) -> tuple[int, int]:
    """The first convolution's, and all: stages of 2 n convolutions on 32^2, 16^2 and 8^2 positions."""
    stem = 32**2 * 27 * width
    total = stem
    for stage in range(3):
        channels, positions = width << stage, (32 >> stage) ** 2
        first = 9 * (channels // 2 if stage else channels) * channels * positions
        total += first + (2 * blocks - 1) * 9 * channels**2 * positions
    return stem, total + 4 * width * 10


def vgg_multiplications() -> tuple[int, int]:
    """The first convolution's, and all: five stages on 32, 16, 8, 4 and 2 pixels a side."""
    channels = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    sides = [32, 16, 8, 8, 4, 4, 2, 2]
    layers = [9 * a * b * s**2 for (a, b), s in zip(pairwise(channels), sides, strict=True)]
    return layers[0], sum(layers) + 2 * 512**2 + 512 * 10


def cnn_multiplications() -> tuple[int, int]:
    """Of 3x32x32 images: convolutions on 32 and 16 pixels a side, then 4096-512-10."""
    first = 32**2 * 25 * 3 * 32
    return first, first + 16**2 * 25 * 32 * 64 + 4096 * 512 + 512 * 10


NETWORKS = [
    ("resnet20", resnet_multiplications(3), 40_551_040),
    ("resnet32", resnet_multiplications(5), 68_862_592),
    ("resnet56", resnet_multiplications(9), 125_485_696),
    ("vgg11", vgg_multiplications(), 153_293_824),
    ("cnn", cnn_multiplications(), 17_667_072),
]


@pytest.mark.parametrize(("name", "multiplications", "total"), NETWORKS)
def test_forward_and_backward_by_hand(
    name: str, multiplications: tuple[int, int], total: int
) -> None:
    """The first layer's input needs no gradient: it costs two passes, the others three."""
    first, every = multiplications
    assert every == total
    model = flatten(split_model(name, CIFAR), CIFAR)
    assert training_flops(model, SampleSpec(CIFAR, 10)) == 2 * (3 * every - first)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.module(torch.zeros(1, *CIFAR))
    assert counter.get_total_flops() == 2 * every


def test_grouped_convolutions_by_hand() -> None:
    """On 9x9: a 3x3 to 8 channels, depthwise with stride 2, four groups, two groups transposed."""
    shape = (1, 9, 9)
    first = 81 * 9 * 8
    others = 16 * 9 * 8 + 16 * 12 * 2 + 16 * 12 * 3 * 4 + 6 * 10
    model = flatten(split_model("Grouped", shape), shape)
    assert training_flops(model, SampleSpec(shape, 10)) == 2 * (2 * first + 3 * others)


def char_lstm(
    dtype: torch.dtype, length: int, embedding: int, hidden: int
) -> tuple[FlatModel, SampleSpec]:
    """Two recurrent layers over `length` ids of 12."""
    spec = SampleSpec((length,), 12, 12)
    split = split_model(
        "char_lstm", spec.shape, 12, dtype, token_ids=12, embedding=embedding, hidden=hidden
    )
    return flatten(split, spec.shape, token_ids=12), spec


SIZES = [(1, 3, 4), (7, 8, 5), (20, 2, 16)]


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize(("length", "embedding", "hidden"), SIZES)
def test_a_fused_lstm_by_hand(length: int, embedding: int, hidden: int) -> None:
    """A step has 4 H (I + H) multiplications a layer; backward has twice as many."""
    layers = 4 * hidden * (embedding + hidden) + 4 * hidden * 2 * hidden
    expected = 3 * 2 * (length * layers + hidden * 12)
    assert training_flops(*char_lstm(torch.float32, length, embedding, hidden)) == expected


@pytest.mark.parametrize(("length", "embedding", "hidden"), SIZES)
def test_an_lstm_of_single_products_by_hand(length: int, embedding: int, hidden: int) -> None:
    """float64 is not fused: torch counts each product, and none for the gradient of h_0 = 0."""
    layers = 4 * hidden * (embedding + hidden) + 4 * hidden * 2 * hidden
    initial = 2 * 4 * hidden**2
    expected = 2 * (3 * (length * layers + hidden * 12) - initial)
    assert training_flops(*char_lstm(torch.float64, length, embedding, hidden)) == expected


def test_the_gpus_fused_lstm_by_hand() -> None:
    """Two layers of 16 units in two directions, 5 steps of 2 samples, on tensors without values.

    The backward operator has no such form: its formula is called with the shapes it would get.
    """
    lstm = nn.LSTM(8, 16, 2, bidirectional=True).to("meta")
    weights = list(lstm.parameters())
    x, state = torch.empty(5, 2, 8, device="meta"), torch.empty(4, 2, 16, device="meta")
    fixed: tuple[Any, ...] = (2, 16, 0, 2, False, 0.0, True, True, [], None)
    forward = 2 * 5 * 2 * (2 * 64 * (8 + 16) + 2 * 64 * (32 + 16))
    with FlopCounterMode(display=False, custom_mapping=dict(FORMULAS)) as counter:
        aten._cudnn_rnn(x, weights, 4, None, state, state, *fixed)
    assert counter.get_total_flops() == forward
    backward = FORMULAS[aten._cudnn_rnn_backward]
    assert backward(x.shape, [w.shape for w in weights], 4, out_shape=None) == 2 * forward
