"""Torchvision's classifiers: found by name, fitted to the data, cut before their last layer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from flat_models import flatten, split_model
from torch import nn
from torch.nn import functional

from spatl_ray.errors import ConfigError, ModelError, SpatlError
from spatl_ray.models.split import PREDICTOR

BATCH_NORMS = {"resnet18": 20, "mobilenet_v3_small": 34, "shufflenet_v2_x0_5": 56}
PREDICTORS: dict[str, tuple[str, dict[str, Any], int]] = {
    "resnet18": ("fc", {}, 32),
    "mobilenet_v3_small": ("classifier.3", {}, 32),
    "squeezenet1_1": ("classifier.1", {}, 32),
    "shufflenet_v2_x0_5": ("fc", {}, 32),
}
LARGE: dict[str, tuple[str, dict[str, Any], int]] = {
    "vgg11_bn": ("classifier.6", {}, 32),
    "efficientnet_b0": ("classifier.1", {}, 32),
    "densenet121": ("classifier", {}, 32),
    "convnext_tiny": ("classifier.2", {}, 32),
    "vit_b_16": ("heads.head", {"image_size": 32}, 32),
    "swin_t": ("head", {}, 32),
    "regnet_y_400mf": ("fc", {}, 32),
    "googlenet": ("fc", {}, 32),
    "inception_v3": ("fc", {}, 75),
}


def count(module: nn.Module, *types: type[nn.Module]) -> int:
    return sum(isinstance(m, types) for m in module.modules())


@pytest.mark.parametrize(
    "name", [*PREDICTORS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_classifier_trains_on_flat_vectors_and_keeps_its_last_layer(
    name: str, channels: int
) -> None:
    predictor, options, side = {**PREDICTORS, **LARGE}[name]
    shape = (channels, side, side)
    split = split_model(f"torchvision.{name}", shape, **options)
    assert split.parts == {predictor: PREDICTOR}
    model = flatten(split, shape)
    model.train(None)
    model.parameters.add_(0.01)  # ViT's last layer begins at 0 and would give no gradient
    logits = model.module(torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (3, 10)
    functional.cross_entropy(logits, torch.arange(3)).backward()
    local = model.layout.local
    assert {s.name for s in local.segments} == {f"{predictor}.weight", f"{predictor}.bias"}
    assert model.gradient[model.layout.shared.size :].any()
    assert model.gradient[: model.layout.shared.size].any()
    space = model.layout.shared
    assert {s.group for s in space.segments} - {-1} == set(range(len(space.groups)))
    for segment in space.segments:
        if segment.group >= 0:
            assert segment.shape[0] == space.groups[segment.group].channels
    assert space.groups[0].channels == split.module.get_submodule(space.groups[0].name).out_channels
    assert np.isfinite(model.gradient.numpy()).all()


def test_batch_norms_follow_their_convolutions() -> None:
    model = flatten(split_model("torchvision.resnet18", (3, 32, 32)), (3, 32, 32))
    space, buffers = model.layout.shared, model.layout.shared_buffers
    index = [g.name for g in space.groups].index("layer2.0.downsample.0")
    parameters = {s.name for s in space.segments if s.group == index}
    norm = "layer2.0.downsample.1"
    assert parameters == {"layer2.0.downsample.0.weight", f"{norm}.weight", f"{norm}.bias"}
    statistics = {s.name for s in buffers.segments if s.group == index}
    assert statistics == {f"{norm}.running_mean", f"{norm}.running_var"}
    assert all(s.group >= 0 for s in space.segments)


def test_a_depthwise_convolution_is_a_group_of_its_own() -> None:
    split = split_model("torchvision.mobilenet_v3_small", (3, 32, 32))
    space = flatten(split, (3, 32, 32)).layout.shared
    names = [g.name for g in space.groups]
    depthwise = "features.1.block.0"
    assert split.module.get_submodule(f"{depthwise}.0").groups == 16
    index = names.index(f"{depthwise}.0")
    assert space.groups[index].channels == 16
    covered = {s.name for s in space.segments if s.group == index}
    assert covered == {f"{depthwise}.0.weight", f"{depthwise}.1.weight", f"{depthwise}.1.bias"}


def test_the_first_convolution_takes_the_datas_channels() -> None:
    of_three = split_model("torchvision.resnet18", (3, 32, 32)).module
    of_one = split_model("torchvision.resnet18", (1, 32, 32)).module
    first = of_one.conv1
    assert first.weight.shape == (64, 1, 7, 7)
    assert (first.stride, first.padding, first.bias) == ((2, 2), (3, 3), None)
    same = {k for k, v in of_three.state_dict().items() if v.shape == of_one.state_dict()[k].shape}
    assert set(of_three.state_dict()) - same == {"conv1.weight"}


@pytest.mark.parametrize(("name", "norms"), BATCH_NORMS.items())
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_batch_norms_are_replaced(name: str, norms: int, norm: str) -> None:
    module = split_model(f"torchvision.{name}", (1, 32, 32), norm=norm).module
    assert count(module, nn.BatchNorm2d) == (norms if norm == "batch" else 0)
    assert count(module, nn.GroupNorm) == (norms if norm == "group" else 0)


def test_options_reach_torchvision() -> None:
    narrow = split_model("torchvision.resnet18", (3, 32, 32), width_per_group=64)
    assert count(narrow.module, nn.Dropout) == 0
    dropping = split_model("torchvision.mobilenet_v3_small", (3, 32, 32), dropout=0.4).module
    assert dropping.classifier[2].p == 0.4


@pytest.mark.parametrize(
    ("name", "shape", "options", "error", "message"),
    [
        ("resnet17", (3, 32, 32), {}, ConfigError,
         "NAME one of .* got 'torchvision.resnet17'; did you mean torchvision.resnet18"),
        ("fasterrcnn_resnet50_fpn", (3, 32, 32), {}, ConfigError, "one of torchvision's classif"),
        ("resnet18", (64,), {}, ModelError, r"torchvision.resnet18 needs images .* got \(64,\)"),
        ("squeezenet1_1", (3, 8, 8), {}, ModelError, r"cannot take samples of shape \(3, 8, 8\)"),
        ("resnet18", (3, 32, 32), {"norm": "layer"}, ModelError, "norm must be .* got 'layer'"),
        ("squeezenet1_1", (3, 32, 32), {"norm": "group"}, ModelError,
         "norm must be left out for torchvision.squeezenet1_1, which has no batch norm"),
        ("resnet18", (3, 32, 32), {"weights": "DEFAULT"}, ModelError,
         r"weights must be left out \(weights are drawn from the seed\), got 'DEFAULT'"),
        ("resnet18", (3, 32, 32), {"num_classes": 5}, ModelError, "num_classes must be left out"),
        ("resnet18", (3, 32, 32), {"wide": 2}, ConfigError, "do not fit torchvision.res.*'wide'"),
        ("googlenet", (3, 32, 32), {"aux_logits": True}, ModelError,
         "aux_logits must be false .*, got True"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_from_torchvision(
    name: str,
    shape: tuple[int, ...],
    options: dict[str, Any],
    error: type[SpatlError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        split_model(f"torchvision.{name}", shape, **options)


def test_the_config_overrules_the_predictor() -> None:
    split = split_model(
        "torchvision.mobilenet_v3_small", (3, 32, 32), predictor=("classifier.0", "classifier.3")
    )
    assert split.part_of("classifier.0.weight") == split.part_of("classifier.3.bias") == PREDICTOR


@pytest.mark.slow
def test_torchvision_is_imported_only_for_its_networks() -> None:
    code = "import sys, spatl_ray.models.split; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
