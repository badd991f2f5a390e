"""A module's tensors are views of flat vectors, and nothing of one client stays for the next."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from flat_models import digits, flatten, split_model
from torch.nn import functional

from spatl_ray.errors import ModelError
from spatl_ray.models.flat import FlatModel
from spatl_ray.models.split import ENCODER, PREDICTOR
from spatl_ray.parameters import ModelVector

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("lenet", {}),
    ("mlp", {}),
    ("resnet20", {"width": 4}),
    ("Functional", {}),
    ("Replacing", {}),
]


def random_vector(model: FlatModel, seed: int = 0) -> ModelVector:
    draw = np.random.default_rng(seed)
    sizes = model.layout.parameters.size, model.layout.buffers.size
    return ModelVector(*(draw.random(n).astype(np.float32) for n in sizes))


def train_step(model: FlatModel, samples: int = 6, skip: int = 0) -> None:
    """Forward and backward in training mode."""
    x, y = digits(skip + samples)
    model.train(None)
    functional.cross_entropy(model.module(x[skip:]), y[skip:]).backward()


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_flattening_keeps_the_values(name: str, options: dict[str, Any]) -> None:
    expected = split_model(name, **options).module.state_dict()
    model = flatten(split_model(name, **options))
    assert all(torch.equal(v, expected[k]) for k, v in model.module.state_dict().items())
    vector = model.read()
    views = {
        **model.layout.parameters.views(vector.parameters),
        **model.layout.buffers.views(vector.buffers),
    }
    floating = {k for k, v in expected.items() if v.is_floating_point()} - {"encoder.same_mean"}
    assert set(views) == floating
    assert all(np.array_equal(view, expected[k].numpy()) for k, view in views.items())


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@pytest.mark.parametrize("read_only", [False, True])
def test_load_and_read_are_inverse(name: str, options: dict[str, Any], read_only: bool) -> None:
    model = flatten(split_model(name, **options))
    vector = random_vector(model)
    vector.parameters.setflags(write=not read_only)
    model.load(vector)
    again = model.read()
    assert np.array_equal(again.parameters, vector.parameters)
    assert np.array_equal(again.buffers, vector.buffers)
    assert not np.shares_memory(again.parameters, vector.parameters)


def test_what_was_read_does_not_change_with_the_model() -> None:
    model = flatten(split_model("resnet20", width=4))
    before = model.read()
    kept = before.parameters.copy()
    model.load(random_vector(model))
    assert np.array_equal(before.parameters, kept)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_tensors_are_views_of_the_vectors(name: str, options: dict[str, Any]) -> None:
    model = flatten(split_model(name, **options))
    vector = random_vector(model)
    model.load(vector)
    tensors = dict(model.module.named_parameters())
    for segment in model.layout.parameters.segments:
        tensor, flat = tensors[segment.name], model.parameters[segment.span]
        assert tensor.data_ptr() == flat.data_ptr()
        assert tensor.grad is not None
        assert tensor.grad.data_ptr() == model.gradient[segment.span].data_ptr()
    buffers = dict(model.module.named_buffers())
    for segment in model.layout.buffers.segments:
        assert buffers[segment.name].data_ptr() == model.buffers[segment.span].data_ptr()


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_gradients_land_in_the_flat_gradient(name: str, options: dict[str, Any]) -> None:
    plain = split_model(name, **options).module.train()
    model = flatten(split_model(name, **options))
    train_step(model)
    x, y = digits(6)
    functional.cross_entropy(plain(x), y).backward()
    views = model.layout.parameters.views(model.gradient.numpy())
    for parameter_name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        assert np.array_equal(views[parameter_name], parameter.grad.numpy())


def test_statistics_are_updated_in_the_flat_vector() -> None:
    plain = split_model("resnet20", width=4).module.train()
    model = flatten(split_model("resnet20", width=4))
    train_step(model)
    plain(digits(6)[0])
    views = model.layout.buffers.views(model.read().buffers)
    buffers = dict(plain.named_buffers())
    assert views
    assert all(np.array_equal(view, buffers[k].numpy()) for k, view in views.items())


def test_roles_decide_the_order() -> None:
    model = flatten(split_model("resnet20", width=4))
    layout = model.layout
    assert {s.part for s in layout.shared.segments} == {ENCODER}
    assert {s.part for s in layout.local.segments} == {PREDICTOR}
    assert layout.parameters.segments[: len(layout.shared.segments)] == layout.shared.segments
    assert layout.parameters.size == layout.shared.size + layout.local.size


@pytest.mark.parametrize("buffers", ["average", "local"])
def test_buffers_are_shared_or_local(buffers: Literal["average", "local"]) -> None:
    layout = flatten(split_model("resnet20", width=4), buffers=buffers).layout
    assert (layout.shared_buffers.size > 0) == (buffers == "average")
    assert (layout.local_buffers.size > 0) == (buffers == "local")
    assert not any("num_batches" in s.name for s in layout.buffers.segments)


@pytest.mark.parametrize("name", ["resnet20", "Cumulative", "Replacing"])
def test_a_clients_training_depends_on_no_other_client(name: str) -> None:
    model = flatten(split_model(name))
    start = model.read()
    train_step(model)
    alone = model.read()
    model.load(random_vector(model))
    train_step(model, skip=6)
    model.load(start)
    train_step(model)
    again = model.read()
    assert not np.array_equal(alone.buffers, start.buffers)
    assert np.array_equal(again.buffers, alone.buffers)
    assert np.array_equal(again.parameters, alone.parameters)


def test_counters_start_again_with_each_load() -> None:
    model = flatten(split_model("resnet20", width=4))
    counter = model.module.get_submodule("encoder.1").num_batches_tracked
    start = model.read()
    train_step(model)
    assert int(counter) == 1
    model.load(start)
    assert int(counter) == 0


def test_a_replaced_buffer_is_found_and_bound_again() -> None:
    model = flatten(split_model("Replacing"))
    train_step(model)
    expected = 0.1 * digits(6)[0].flatten(1).mean(0)
    assert np.array_equal(model.read().buffers, expected.numpy())
    model.load(random_vector(model))
    assert model.module.mean.data_ptr() == model.buffers.data_ptr()
    assert model.module.mean is model.module.encoder.same_mean


def test_tied_tensors_have_one_place_if_their_roles_agree() -> None:
    model = flatten(split_model("TiedAcross"), shared=True)
    names = [s.name for s in model.layout.parameters.segments]
    assert names == ["encoder.weight", "encoder.bias", "predictor.bias"]
    model.load(random_vector(model))
    assert torch.equal(model.module.encoder.weight, model.module.predictor.weight)


def test_tied_tensors_of_a_shared_and_a_local_part_are_refused() -> None:
    with pytest.raises(
        ModelError,
        match=r"^encoder\.weight and predictor\.weight are one tensor, but encoder is shared "
        r"and predictor is local",
    ):
        flatten(split_model("TiedAcross"))


def modes(model: FlatModel) -> dict[str, bool]:
    return {name: module.training for name, module in model.module.named_modules()}


@pytest.mark.parametrize("name", ["resnet20", "Dropping"])
def test_frozen_parts_are_in_evaluation_mode(name: str) -> None:
    model = flatten(split_model(name))
    model.train(frozenset({PREDICTOR}))
    for module, training in modes(model).items():
        assert training == (not module.startswith("encoder"))
    for parameter_name, parameter in model.module.named_parameters():
        assert parameter.requires_grad == parameter_name.startswith("predictor")


def test_evaluation_and_training_mode_undo_each_other() -> None:
    model = flatten(split_model("resnet20", width=4))
    model.train(frozenset({PREDICTOR}))
    model.evaluate()
    assert not any(modes(model).values())
    model.train(None)
    assert all(modes(model).values())
    assert all(p.requires_grad for p in model.module.parameters())
