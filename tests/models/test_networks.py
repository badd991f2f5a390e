"""The networks' sizes as published, and the shapes and options they refuse."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from flat_models import split_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spatl_ray.errors import ConfigError, ModelError
from spatl_ray.models.resnet import ResNet
from spatl_ray.models.split import ENCODER, PREDICTOR, SplitModel


def size(split: SplitModel, part: str | None = None) -> int:
    named = split.module.named_parameters()
    return sum(p.numel() for name, p in named if part in (None, split.part_of(name)))


def convolution(inputs: int, outputs: int, kernel: int) -> int:
    return outputs * (inputs * kernel**2 + 1)


@pytest.mark.parametrize(("shape", "total"), [((3, 32, 32), 62_006), ((1, 28, 28), 44_426)])
def test_lenet_has_the_published_size(shape: tuple[int, ...], total: int) -> None:
    assert size(split_model("lenet", shape)) == total


@pytest.mark.parametrize(("channels", "encoder"), [(1, 2_572), (3, 2_872)])
def test_lenet_is_cut_behind_its_convolutions(channels: int, encoder: int) -> None:
    split = split_model("lenet", (channels, 28, 28))
    assert size(split, ENCODER) == encoder == convolution(channels, 6, 5) + convolution(6, 16, 5)
    assert size(split, ENCODER) + size(split, PREDICTOR) == size(split)


def test_resnet20_has_the_published_size() -> None:
    split = split_model("resnet20", (3, 32, 32))
    assert size(split) == 269_722
    assert size(split, PREDICTOR) == 650


def test_resnet32_has_the_published_size() -> None:
    module = ResNet((3, 32, 32), 10, depth=32)
    assert sum(p.numel() for p in module.parameters()) == 464_154


def test_a_residual_block_adds_a_subsampled_and_padded_shortcut() -> None:
    module = ResNet((3, 8, 8), 10, depth=8).eval()
    block = module.encoder[4]
    for layer in (block.norm2.weight, block.norm2.bias):
        nn.init.zeros_(layer)
    x = torch.rand(2, 16, 8, 8)
    y = block(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


@given(st.lists(st.integers(1, 9), max_size=3), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_mlp_size(hidden: list[int], classes: int) -> None:
    widths = [6, *hidden, classes]
    expected = sum((a + 1) * b for a, b in pairwise(widths))
    split = split_model("mlp", (2, 3), classes, hidden=hidden)
    assert size(split) == expected
    assert size(split, PREDICTOR) == (widths[-2] + 1) * classes


@given(st.integers(1, 40))
@settings(deadline=None, max_examples=30)
def test_group_norm_has_equal_groups_of_up_to_8_channels(width: int) -> None:
    module = ResNet((1, 8, 8), 2, depth=8, width=width, norm="group")
    for norm in (m for m in module.modules() if isinstance(m, nn.GroupNorm)):
        channels = norm.num_channels / norm.num_groups
        assert channels == math.floor(channels) <= 8
    assert module(torch.zeros(1, 1, 8, 8)).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "shape", "options", "error", "message"),
    [
        ("lenet", (1, 15, 16), {}, ModelError, r"at least 16x16 .* got \(1, 15, 16\)"),
        ("lenet", (64,), {}, ModelError, r"lenet needs images .* got \(64,\)"),
        ("resnet20", (64,), {}, ModelError, r"resnet needs images .* got shape \(64,\)"),
        ("resnet20", (1, 8, 8), {"norm": "layer"}, ModelError, "norm must be .* got 'layer'"),
        ("resnet20", (1, 8, 8), {"width": 0}, ModelError, "width must be at least 1, got 0"),
        ("resnet20", (1, 8, 8), {"width": "8"}, ConfigError, "model.options do not fit resnet20"),
        ("resnet20", (1, 8, 8), {"wide": 8}, ConfigError, "model.options do not fit .*'wide'"),
        ("mlp", (64,), {"hidden": [8, 0]}, ModelError, r"hidden must be .* got \[8, 0\]"),
        ("mlp", (64,), {"hidden": [-1]}, ModelError, r"hidden must be .* got \[-1\]"),
        ("mlp", (64,), {"hidden": 8}, ConfigError, "model.options do not fit mlp"),
        ("spatl_ray.models.resnet:ResNet", (1, 8, 8), {"depth": 21}, ModelError, "6n.* got 21"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, shape: tuple[int, ...], options: dict[str, object], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        split_model(name, shape, **options)


def test_the_smallest_image_of_lenet() -> None:
    assert size(split_model("lenet", (1, 16, 16)), PREDICTOR) == 17 * 120 + 121 * 84 + 85 * 10
