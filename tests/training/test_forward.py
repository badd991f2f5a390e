"""Options that trade bits for speed: near the reference, and no more than they say."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from flat_models import LR, digits, flatten, order, split_model, text, text_model
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.config import Training
from spatl_ray.models.flat import FlatModel
from spatl_ray.training.forward import Forward
from spatl_ray.training.local import LocalTask, Trainer

COLOUR = (3, 16, 16)
"""With one channel both layouts are the same."""


def gradient(model: FlatModel, **training: Any) -> np.ndarray:
    """At the initial model, on twenty coloured digits."""
    (x, y), trainer = digits(20), Trainer(model, Training(**training))
    coloured = torch.cat([x, 1 - x, x**2], dim=1)
    found: np.ndarray = trainer.gradient(model.read(), coloured, y)
    return found


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Of two vectors, relative to the second."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.mark.parametrize("name", ["lenet", "resnet20", "vgg11", "mlp"])
def test_bf16_rounds_but_keeps_the_direction(name: str) -> None:
    options = {"width": 8} if name in ("resnet20", "vgg11") else {}
    side = 32 if name == "vgg11" else 16
    model = flatten(split_model(name, (1, side, side), **options), (1, side, side))
    x, y = digits(20, side=side)
    full, rounded = (
        Trainer(model, Training(precision=p)).gradient(model.read(), x, y) for p in ("full", "bf16")
    )
    assert 1e-4 < difference(rounded, full) < 0.25
    assert rounded.dtype == np.float32


def test_what_goes_in_and_comes_out_has_the_parameters_dtype() -> None:
    model, (x, _) = flatten(split_model("lenet")), digits(4)
    output = Forward(model, Training(precision="bf16"))(x)
    assert output.dtype == torch.float32
    # Values that came through bfloat16 have no more than 8 significant bits.
    assert torch.equal(output, output.to(torch.bfloat16).float())
    assert not torch.equal(output, Forward(model, Training())(x))


@pytest.mark.parametrize("name", ["lenet", "resnet20", "mlp"])
def test_channels_last_is_the_same_to_rounding(name: str) -> None:
    model = flatten(split_model(name, COLOUR), COLOUR)
    assert difference(gradient(model, channels_last=True), gradient(model)) < 1e-5


def test_channels_last_lies_so_in_memory() -> None:
    seen: list[torch.Tensor] = []
    model = flatten(split_model("lenet", COLOUR), COLOUR)
    model.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for last in (True, False):
        gradient(model, channels_last=last)
    lies = [x.is_contiguous(memory_format=torch.channels_last) for x in seen]
    assert lies == [True, False]


def test_token_ids_have_no_channels() -> None:
    model, samples = text_model(), text(8)
    found, plain = (
        Trainer(model, Training(channels_last=last)).gradient(model.read(), *samples)
        for last in (True, False)
    )
    assert np.array_equal(found, plain)


@given(st.sampled_from(["full", "bf16"]), st.booleans(), st.integers(0, 5))
def test_the_same_task_gives_the_same_bits(precision: Any, last: bool, seed: int) -> None:
    model = flatten(split_model("resnet20", width=2))
    trainer = Trainer(model, Training(precision=precision, channels_last=last, steps=2))
    task, samples = LocalTask(model.read()), digits(20)
    first, again = (trainer.run(task, *samples, LR, order(seed)).end for _ in range(2))
    assert np.array_equal(first.parameters, again.parameters)
    assert np.array_equal(first.buffers, again.buffers)


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_trains_as_the_plain_one() -> None:
    """With batches of two sizes and frozen parts in turn."""
    model = flatten(split_model("mlp", hidden=[8]))
    task, samples = LocalTask(model.read()), digits(20)
    compiled, plain = (
        Trainer(model, Training(epochs=2, batch_size=16, compile=c)).run(
            task, *samples, LR, order()
        )
        for c in (True, False)
    )
    assert difference(compiled.end.parameters, plain.end.parameters) < 1e-5
    assert not np.array_equal(compiled.end.parameters, task.start.parameters)
