"""A channel mask covers a layer and the norm behind it, and nothing else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from flat_models import digits, flatten, split_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spatl_ray.arrays import Bits
from spatl_ray.models.flat import FlatModel
from spatl_ray.models.split import ENCODER
from spatl_ray.parameters import ModelVector, Space

PRUNABLE = (nn.Conv2d, nn.Linear)
NORM = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("lenet", {}),
    ("mlp", {"hidden": [7, 5]}),
    ("resnet20", {"width": 4}),
    ("resnet20", {"width": 4, "norm": "group"}),
    ("resnet20", {"width": 4, "norm": "none"}),
    ("lenet", {"norm": "batch"}),
    ("cnn", {"width": 4, "hidden": 8, "norm": "group"}),
    ("vgg11", {"width": 2, "norm": "batch"}),
    ("Functional", {}),
]
RECURRENT: list[tuple[str, dict[str, Any]]] = [
    ("Rows", {}),
    ("Rows", {"kind": "GRU", "num_layers": 2}),
    ("Rows", {"kind": "RNN", "bias": False}),
    ("Rows", {"num_layers": 2, "bias": False}),
]


def covered(space: Space) -> dict[str, set[str]]:
    """The names of each group's segments."""
    names: dict[str, set[str]] = {group.name: set() for group in space.groups}
    for segment in space.segments:
        if segment.group >= 0:
            names[space.groups[segment.group].name].add(segment.name)
    return names


def chain(model: FlatModel) -> dict[str, str]:
    """Each encoder layer's norm, by the order in which modules are declared; no norm, no entry."""
    modules = [(n, m) for n, m in model.module.named_modules() if isinstance(m, PRUNABLE + NORM)]
    pairs = pairwise(modules)
    return {a: b for (a, x), (b, y) in pairs if isinstance(x, PRUNABLE) and isinstance(y, NORM)}


def tensors(module: nn.Module, prefix: str) -> tuple[set[str], set[str]]:
    """Names of a module's parameters and of its floating buffers."""
    floating = {n for n, b in module.named_buffers() if b.is_floating_point()}
    parameters = {n for n, _ in module.named_parameters()}
    return {f"{prefix}.{n}" for n in parameters}, {f"{prefix}.{n}" for n in floating}


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_a_group_is_a_layer_with_its_bias_and_the_norm_behind_it(
    name: str, options: dict[str, Any]
) -> None:
    model = flatten(split_model(name, **options))
    follows = {} if name == "Functional" else chain(model)
    if name == "Functional":
        follows = {"first": "norm"}
    parameters, buffers = {}, {}
    for layer, module in model.module.named_modules():
        if isinstance(module, PRUNABLE) and model.split.part_of(layer) == ENCODER:
            own, _ = tensors(module, layer)
            norm = follows.get(layer)
            more = tensors(model.module.get_submodule(norm), norm) if norm else (set(), set())
            parameters[layer], buffers[layer] = own | more[0], more[1]
    assert covered(model.layout.parameters) == parameters
    assert covered(model.layout.buffers) == buffers


@pytest.mark.parametrize(("name", "options"), [*NETWORKS, *RECURRENT])
def test_groups_lie_behind_each_other(name: str, options: dict[str, Any]) -> None:
    model = flatten(split_model(name, **options))
    space = model.layout.shared
    assert [g.offset for g in space.groups] == [
        sum(g.channels for g in space.groups[:i]) for i in range(len(space.groups))
    ]
    for segment in space.segments:
        if segment.group >= 0:
            assert segment.shape[0] == space.groups[segment.group].channels


@pytest.mark.parametrize(("name", "options"), [*NETWORKS, *RECURRENT])
@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=3)
def test_a_mask_is_the_same_as_zeroing_the_rows_of_every_tensor(
    name: str, options: dict[str, Any], seed: int
) -> None:
    model = flatten(split_model(name, **options))
    space = model.layout.shared
    bits = np.random.default_rng(seed).random(space.channels) < 0.5
    vector = shaken(model, seed)
    expected = masked(model, vector, bits, also_buffers=True)
    model.load(vector)
    tensors = {**dict(model.module.named_parameters()), **dict(model.module.named_buffers())}
    for group, names in zip(space.groups, covered(model.layout.parameters).values(), strict=True):
        dropped = torch.from_numpy(~bits[group.offset : group.offset + group.channels])
        for tensor in names | covered(model.layout.buffers)[group.name]:
            tensors[tensor].data[dropped] = 0
    assert np.array_equal(model.read().parameters, expected.parameters)
    assert np.array_equal(model.read().buffers, expected.buffers)


def shaken(model: FlatModel, seed: int) -> ModelVector:
    """A model in which no parameter and no statistic has a value that hides a mistake."""
    draw = np.random.default_rng(seed)
    vector = model.read()
    parameters = vector.parameters + draw.normal(0, 0.1, vector.parameters.shape)
    buffers = vector.buffers + draw.uniform(0.1, 0.5, vector.buffers.shape)
    return ModelVector(parameters.astype(np.float32), buffers.astype(np.float32))


def masked(model: FlatModel, vector: ModelVector, bits: Bits, also_buffers: bool) -> ModelVector:
    """The model with the positions that the mask drops set to 0."""
    kept = model.layout.buffers.expand(bits)
    return ModelVector(
        vector.parameters * model.layout.parameters.expand(bits),
        vector.buffers * kept if also_buffers else vector.buffers,
    )


def feature_maps(model: FlatModel, tails: list[str], x: Tensor) -> dict[str, Tensor]:
    """What the named modules give in evaluation mode, channels first."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, args, output: seen.update({name: output.transpose(0, 1)})

    handles = [model.module.get_submodule(n).register_forward_hook(keep(n)) for n in tails]
    model.evaluate()
    with torch.no_grad():
        model.module(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@given(seed=st.integers(0, 2**32 - 1), also_buffers=st.booleans())
@settings(deadline=None, max_examples=5)
def test_dropped_channels_give_feature_maps_of_exactly_0(
    name: str, options: dict[str, Any], seed: int, also_buffers: bool
) -> None:
    model = flatten(split_model(name, **options))
    space = model.layout.shared
    bits = np.random.default_rng(seed).random(space.channels) < 0.5
    model.load(masked(model, shaken(model, seed), bits, also_buffers))
    norms = {"first": "norm"} if name == "Functional" else chain(model)
    tails = {g.name: norms.get(g.name, g.name) for g in space.groups}
    maps = feature_maps(model, list(tails.values()), digits(4)[0])
    for group in space.groups:
        own = torch.from_numpy(bits[group.offset : group.offset + group.channels])
        values = maps[tails[group.name]].flatten(1)
        assert not values[~own].any()
        assert values[own].any(dim=1).all() or not own.any()


def test_a_tensor_changed_in_place_is_no_longer_the_layers_output() -> None:
    model = flatten(split_model("InPlaceShortcut"))
    assert covered(model.layout.shared) == {
        "encoder.conv": {"encoder.conv.weight", "encoder.conv.bias"}
    }


def test_a_norm_behind_two_layers_follows_none() -> None:
    model = flatten(split_model("OneNormForTwo"))
    assert covered(model.layout.shared) == {
        f"encoder.{i}": {f"encoder.{i}.weight", f"encoder.{i}.bias"} for i in (0, 2)
    }


def test_a_layer_that_mixes_channels_does_not_follow() -> None:
    model = flatten(split_model("Transposed"))
    assert covered(model.layout.shared) == {"encoder.0": {"encoder.0.weight", "encoder.0.bias"}}


def test_a_layers_other_parameters_are_not_covered() -> None:
    model = flatten(split_model("Scaled"))
    (names,) = covered(model.layout.shared).values()
    convolution, norm = ("encoder.0", "encoder.1")
    assert names == {f"{m}.{t}" for m in (convolution, norm) for t in ("weight", "bias")}
    kept = model.layout.shared.expand(np.zeros(4, dtype=np.bool_))
    assert kept.sum() == 1 + 2


def test_a_layer_with_a_computed_weight_is_not_prunable() -> None:
    model = flatten(split_model("Parametrised"))
    assert covered(model.layout.shared) == {"encoder.2": {"encoder.2.weight", "encoder.2.bias"}}


def test_a_layer_with_another_layers_weight_is_not_prunable() -> None:
    model = flatten(split_model("TiedInside", (1, 2, 2)), (1, 2, 2))
    assert covered(model.layout.shared) == {"encoder.1": {"encoder.1.weight", "encoder.1.bias"}}


def test_the_predictor_has_no_groups_even_if_it_is_shared() -> None:
    model = flatten(split_model("lenet"), shared=True)
    assert [g.name for g in model.layout.shared.groups] == ["encoder.0", "encoder.3"]


def test_an_encoder_without_layers_has_no_groups() -> None:
    model = flatten(split_model("mlp", hidden=[]))
    assert (model.layout.shared.size, model.layout.shared.groups) == (0, ())
    assert model.layout.local.size == 257 * 10


def test_finding_followers_leaves_the_module_as_it_was() -> None:
    split = split_model("resnet20", width=4)
    split.module.train()
    before = {k: v.clone() for k, v in split.module.state_dict().items()}
    flatten(split)
    assert split.module.training
    assert all(torch.equal(before[k], v) for k, v in split.module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in split.module.modules())
