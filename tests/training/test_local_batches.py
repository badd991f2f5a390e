"""Which samples a step sees: epochs, steps, and the last, smaller batch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from flat_models import flatten, split_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spatl_ray.config import Training
from spatl_ray.errors import DataError
from spatl_ray.training.batches import draw_batches, processed_samples
from spatl_ray.training.local import LocalResult, LocalTask, Phase, Trainer

WHOLE_MODEL = Phase()


def batches_of(
    n: int, phase: Phase = WHOLE_MODEL, **training: Any
) -> tuple[list[list[int]], LocalResult]:
    """The samples of each step: labels are the samples' own numbers."""
    model = flatten(split_model("mlp", (1,), 2, hidden=[]), (1,))
    seen: list[list[int]] = []

    def note(output: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels.tolist())
        return output.sum() * 0 + 1

    x, y = torch.zeros(n, 1), torch.arange(n)
    task = LocalTask(model.read(), phases=(phase,), loss=note)
    return seen, Trainer(model, Training(**training)).run(
        task, x, y, 0.05, np.random.default_rng(n)
    )


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_an_epoch_is_each_sample_once(n: int, size: int, epochs: int) -> None:
    seen, result = batches_of(n, batch_size=size, epochs=epochs)
    steps = -(-n // size)
    assert (result.steps, result.samples) == (epochs * steps, epochs * n)
    assert result.loss == pytest.approx(1)
    for epoch in range(epochs):
        batches = seen[epoch * steps : (epoch + 1) * steps]
        assert sorted(row for batch in batches for row in batch) == list(range(n))
        assert {len(b) for b in batches[:-1]} <= {size}
        assert len(batches[-1]) == (n - 1) % size + 1


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_steps_cross_epochs(n: int, size: int, steps: int) -> None:
    seen, result = batches_of(n, batch_size=size, steps=steps)
    whole, _ = batches_of(n, batch_size=size, epochs=steps)
    assert seen == whole[:steps]
    assert result.steps == steps == len(seen)
    assert result.samples == sum(map(len, seen))


def test_epochs_are_shuffled_anew() -> None:
    seen, _ = batches_of(50, batch_size=50, epochs=4)
    assert all(a != b for a, b in pairwise(seen))


@pytest.mark.parametrize("training", [{"steps": 5}, {"epochs": 5}])
def test_a_phase_has_its_own_epochs(training: dict[str, int]) -> None:
    _, result = batches_of(10, Phase(epochs=2), batch_size=4, **training)
    assert (result.steps, result.samples) == (6, 20)


@pytest.mark.parametrize("training", [{"steps": 2}, {"epochs": 5}])
def test_a_phase_has_its_own_steps(training: dict[str, int]) -> None:
    seen, result = batches_of(10, Phase(steps=4), batch_size=4, **training)
    assert [len(batch) for batch in seen] == [4, 4, 2, 4]
    assert (result.steps, result.samples) == (4, 14)


# --- without the smaller last batch ---------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_a_smaller_last_batch_is_left_out_unless_it_is_the_only_one(
    n: int, size: int, epochs: int
) -> None:
    seen, result = batches_of(n, batch_size=size, epochs=epochs, drop_last=True)
    whole, _ = batches_of(n, batch_size=size, epochs=epochs)
    assert seen == [batch for batch in whole if len(batch) == min(n, size)]
    assert result.steps == epochs * max(n // size, 1)
    assert result.samples == result.steps * min(n, size)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_steps_are_full_batches_too(n: int, size: int, steps: int) -> None:
    seen, result = batches_of(n, batch_size=size, steps=steps, drop_last=True)
    whole, _ = batches_of(n, batch_size=size, epochs=steps, drop_last=True)
    assert seen == whole[:steps]
    assert (result.steps, result.samples) == (steps, steps * min(n, size))


def test_a_phase_leaves_it_out_as_well() -> None:
    seen, _ = batches_of(10, Phase(epochs=2), batch_size=4, steps=5, drop_last=True)
    assert [len(batch) for batch in seen] == [4, 4, 4, 4]


def normed(samples: int, **training: Any) -> LocalResult:
    """A training in which the deepest batch norms see one value a channel and sample."""
    shape = (1, 4, 4)
    model = flatten(split_model("resnet20", shape, width=4), shape)
    x, y = torch.linspace(-1, 1, samples * 16).reshape(samples, *shape), torch.arange(samples)
    trainer = Trainer(model, Training(**training))
    return trainer.run(LocalTask(model.read()), x, y, 0.05, np.random.default_rng(0))


def test_batch_norm_trains_without_a_last_batch_of_one() -> None:
    assert normed(9, batch_size=4, drop_last=True).samples == 8
    text = r"at least two samples, got one with training.batch_size=4: training.drop_last=true"
    with pytest.raises(DataError, match=text):
        normed(9, batch_size=4)


def test_a_single_sample_cannot_be_left_out() -> None:
    with pytest.raises(DataError, match=r"unless it is all that the client has$"):
        normed(1, batch_size=4, drop_last=True)


def test_batches_of_one_cannot_be_left_out() -> None:
    with pytest.raises(DataError, match=r"training.batch_size=1: take a larger one$"):
        normed(2, batch_size=1, drop_last=True)


@given(
    st.integers(1, 40),
    st.integers(1, 12),
    st.booleans(),
    st.integers(1, 5),
    st.sampled_from(["epochs", "steps"]),
)
def test_processed_samples_are_those_of_the_batches(
    n: int, size: int, drop_last: bool, length: int, unit: str
) -> None:
    epochs, steps = (length, None) if unit == "epochs" else (None, length)
    batches = draw_batches(n, size, drop_last, epochs, steps, np.random.default_rng(0))
    (expected,) = processed_samples(np.array([n]), size, drop_last, epochs, steps)
    assert sum(map(len, batches)) == expected


@pytest.mark.parametrize("training", [{"steps": 5}, {"epochs": 5}])
def test_no_samples_are_refused(training: dict[str, int]) -> None:
    with pytest.raises(DataError, match="at least one sample"):
        batches_of(0, **training)
