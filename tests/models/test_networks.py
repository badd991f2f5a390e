"""The networks' sizes as published, and the shapes and options they refuse."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import Any

import pytest
import torch
from flat_models import split_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spatl_ray.errors import ConfigError, ModelError
from spatl_ray.models.resnet import ResNet
from spatl_ray.models.split import ENCODER, PREDICTOR, SplitModel

NORMS = (nn.BatchNorm2d, nn.GroupNorm)
SCALED = ["lenet", "cnn", "resnet20", "resnet32", "resnet56", "vgg11", "vgg16"]


def size(split: SplitModel, part: str | None = None) -> int:
    named = split.module.named_parameters()
    return sum(p.numel() for name, p in named if part in (None, split.part_of(name)))


def convolution(inputs: int, outputs: int, kernel: int) -> int:
    return outputs * (inputs * kernel**2 + 1)


def linear(*widths: int) -> int:
    return sum((a + 1) * b for a, b in pairwise(widths))


@pytest.mark.parametrize(
    ("name", "shape", "total", "predictor"),
    [
        ("lenet", (3, 32, 32), 62_006, linear(400, 120, 84, 10)),
        ("lenet", (1, 28, 28), 44_426, linear(256, 120, 84, 10)),
        ("cnn", (1, 28, 28), 1_663_370, linear(512, 10)),
        ("resnet20", (3, 32, 32), 269_722, linear(64, 10)),
        ("resnet32", (3, 32, 32), 464_154, linear(64, 10)),
        ("resnet56", (3, 32, 32), 853_018, linear(64, 10)),
        ("vgg11", (3, 32, 32), 9_750_922, 9_750_922 - 9_220_480),
        ("vgg13", (3, 32, 32), 9_404_992 + 530_442, 530_442),
        ("vgg16", (3, 32, 32), 14_714_688 + 530_442, 530_442),
    ],
)
def test_networks_have_the_published_size_and_predictor(
    name: str, shape: tuple[int, ...], total: int, predictor: int
) -> None:
    split = split_model(name, shape)
    assert size(split) == total
    assert size(split, PREDICTOR) == predictor
    assert size(split, ENCODER) + size(split, PREDICTOR) == size(split)


@pytest.mark.parametrize(("channels", "encoder"), [(1, 2_572), (3, 2_872)])
def test_lenet_is_cut_behind_its_convolutions(channels: int, encoder: int) -> None:
    split = split_model("lenet", (channels, 28, 28))
    assert size(split, ENCODER) == encoder == convolution(channels, 6, 5) + convolution(6, 16, 5)


def test_the_cnn_is_cut_before_its_last_layer() -> None:
    split = split_model("cnn", (1, 28, 28), classes=62, hidden=2048)
    features = convolution(1, 32, 5) + convolution(32, 64, 5) + linear(7 * 7 * 64, 2048)
    assert size(split, ENCODER) == features
    assert size(split, PREDICTOR) == linear(2048, 62)


def test_vgg11_is_cut_behind_its_convolutions() -> None:
    split = split_model("vgg11", (3, 32, 32))
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    assert size(split, ENCODER) == sum(convolution(a, b, 3) for a, b in pairwise(widths))
    assert size(split, PREDICTOR) == linear(512, 512, 512, 10)


@pytest.mark.parametrize(
    ("sides", "poolings", "left"),
    [((32, 32), 5, 1), ((28, 28), 4, 1), ((16, 16), 4, 1), ((1, 1), 0, 1), ((64, 48), 5, 2),
     ((32, 5), 2, 8)],
)  # fmt: skip
def test_vgg11_pools_while_both_sides_are_larger_than_1(
    sides: tuple[int, int], poolings: int, left: int
) -> None:
    module = split_model("vgg11", (1, *sides), width=2).module
    assert sum(isinstance(m, nn.MaxPool2d) for m in module.modules()) == poolings
    assert module.predictor[1].in_features == 16 * left


@pytest.mark.parametrize("name", SCALED)
def test_a_wider_network_has_more_of_each_part(name: str) -> None:
    sizes = [
        [size(split_model(name, width=width), part) for part in (ENCODER, PREDICTOR)]
        for width in (2, 4, 8)
    ]
    for part in range(1 if name == "cnn" else 2):
        narrow, middle, wide = (each[part] for each in sizes)
        assert narrow < middle < wide


def test_lenets_layers_scale_together() -> None:
    split = split_model("lenet", (3, 32, 32), width=12)
    features = convolution(3, 12, 5) + convolution(12, 32, 5)
    assert size(split) == features + linear(800, 240, 168, 10)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_each_convolution_has_the_norm_or_a_bias(name: str, norm: str) -> None:
    module = split_model(name, width=4, norm=norm).module
    wanted = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm}.get(norm)
    layers = [m for m in module.modules() if isinstance(m, (nn.Conv2d, *NORMS))]
    convolutions = [m for m in layers if isinstance(m, nn.Conv2d)]
    assert all((m.bias is None) == (wanted is not None) for m in convolutions)
    behind = [type(m) for m in layers if not isinstance(m, nn.Conv2d)]
    assert behind == [wanted] * len(convolutions if wanted else [])
    if wanted:
        pairs = list(zip(layers[::2], layers[1::2], strict=True))
        assert all(isinstance(a, nn.Conv2d) and isinstance(b, wanted) for a, b in pairs)


def test_he_initialisation_keeps_the_size_of_features() -> None:
    """Var(w) = 2 / inputs, so a ReLU layer gives the same mean square as it takes."""
    module = split_model("vgg11", (3, 32, 32)).module
    for layer in (m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        inputs = layer.weight[0].numel()
        assert float(layer.weight.detach().square().mean() * inputs) == pytest.approx(2, rel=0.1)
        assert not layer.bias.any()


def test_large_networks_are_built_within_a_second() -> None:
    for name in ("resnet56", "vgg11"):
        start = time.process_time()
        split_model(name, (3, 32, 32))
        assert time.process_time() - start < 1


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
    split = split_model("mlp", (2, 3), classes, hidden=hidden)
    widths = [6, *hidden, classes]
    assert size(split) == linear(*widths)
    assert size(split, PREDICTOR) == linear(*widths[-2:])


@given(st.integers(1, 40))
@settings(deadline=None, max_examples=30)
def test_group_norm_has_equal_groups_of_up_to_8_channels(width: int) -> None:
    module = ResNet((1, 8, 8), 2, depth=8, width=width, norm="group")
    for norm in (m for m in module.modules() if isinstance(m, nn.GroupNorm)):
        channels = norm.num_channels / norm.num_groups
        assert channels == math.floor(channels) <= 8
    assert module(torch.zeros(1, 1, 8, 8)).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("lenet", (1, 15, 16), {}, r"images of at least 16x16 .* got \(1, 15, 16\)"),
        ("lenet", (64,), {}, r"lenet needs images .* got \(64,\)"),
        ("lenet", (1, 16, 16), {"width": 0}, "width must be an integer of at least 1, got 0"),
        ("cnn", (1, 3, 4), {}, r"cnn needs images of at least 4x4 .* got \(1, 3, 4\)"),
        ("cnn", (1, 8, 8), {"hidden": -1}, "hidden must be an integer of at least 1, got -1"),
        ("cnn", (1, 8, 8), {"width": 1.5}, "width must be an integer of at least 1, got 1.5"),
        ("vgg11", (64,), {}, r"vgg11 needs images as .* got \(64,\)"),
        ("vgg11", (1, 8, 8), {"width": True}, "width must be an integer .*, got True"),
        ("resnet20", (64,), {}, r"resnet needs images .* got \(64,\)"),
        ("resnet20", (1, 8, 8), {"width": 0}, "width must be an integer of at least 1, got 0"),
        ("resnet20", (1, 8, 8), {"width": "8"}, "width must be an integer .* got '8'"),
        ("mlp", (64,), {"hidden": [8, 0]}, r"hidden\[1\] must be an integer .* got 0"),
        ("mlp", (64,), {"hidden": [-1]}, r"hidden\[0\] must be an integer .* got -1"),
        ("spatl_ray.models.resnet:ResNet", (1, 8, 8), {"depth": 21}, "6n.* got 21"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        split_model(name, shape, **options)


@pytest.mark.parametrize("name", SCALED)
def test_a_norm_that_there_is_not(name: str) -> None:
    with pytest.raises(ModelError, match=r"options.norm must be batch, .* got 'layer'"):
        split_model(name, norm="layer")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet20", {"wide": 8}, "model.options do not fit resnet20.*'wide'"),
        ("resnet20", {"depth": 32}, "model.options do not fit resnet20.*'depth'"),
        ("mlp", {"hidden": 8}, "model.options do not fit mlp"),
    ],
)
def test_options_that_the_network_does_not_have(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        split_model(name, **options)


def test_the_smallest_image_of_lenet() -> None:
    assert size(split_model("lenet", (1, 16, 16)), PREDICTOR) == 17 * 120 + 121 * 84 + 85 * 10
