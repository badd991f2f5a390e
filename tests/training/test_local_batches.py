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


@pytest.mark.parametrize("training", [{"steps": 5}, {"epochs": 5}])
def test_no_samples_are_refused(training: dict[str, int]) -> None:
    with pytest.raises(DataError, match="at least one sample"):
        batches_of(0, **training)
