"""Scores of hand-made logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from flat_models import digits, flatten, split_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spatl_ray.models.flat import FlatModel
from spatl_ray.parameters import ModelVector
from spatl_ray.training.evaluate import Score, evaluate

CLASSES = 4


def identity() -> tuple[FlatModel, ModelVector]:
    """A model whose logits are its samples."""
    split = split_model("mlp", (CLASSES,), CLASSES, torch.float64, hidden=[])
    model = flatten(split, (CLASSES,))
    weights = np.concatenate([np.eye(CLASSES).ravel(), np.zeros(CLASSES)])
    return model, ModelVector(weights, np.zeros(0))


def score(logits: list[list[float]], labels: list[int], batch_size: int = 500) -> Score:
    model, vector = identity()
    x, y = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    found = evaluate(model, vector, x, y, batch_size)
    assert found is not None
    return found


def test_hand_made_logits() -> None:
    got = score([[9, 0, 0, 0], [0, 0, 3, 0], [0, 1, 0, 0], [0, 0, 0, 2]], [0, 2, 3, 3])
    assert (got.correct, got.samples, got.accuracy) == (3, 4, 0.75)


def test_the_loss_is_the_mean_cross_entropy_in_nats() -> None:
    ln = math.log
    got = score([[0, 0, 0, 0], [ln(3), 0, 0, 0], [ln(3), 0, 0, 0]], [1, 0, 1])
    assert got.loss == pytest.approx((ln(4) + ln(2) + ln(6)) / 3, rel=1e-14)


logits = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 30), st.just(CLASSES)), elements=st.integers(-5, 5)
)


@given(logits, st.integers(1, 40), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_it_does_not_depend_on_the_batch_size(x: np.ndarray, size: int, seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, CLASSES, len(x))
    whole, cut = (score(x.tolist(), y.tolist(), n) for n in (len(x), size))
    # Ties go to the lower class, in NumPy as in torch.
    assert whole.correct == cut.correct == int((x.argmax(axis=1) == y).sum())
    assert cut.loss == pytest.approx(whole.loss, rel=1e-12)
    assert whole.samples == cut.samples == len(x)


def test_no_samples_give_no_score() -> None:
    model, vector = identity()
    assert evaluate(model, vector, torch.zeros(0, CLASSES), torch.zeros(0), 5) is None


def test_batch_norm_uses_and_keeps_its_running_statistics() -> None:
    model = flatten(split_model("resnet20", width=4, dtype=torch.float64))
    model.train(None)
    start = model.read()
    x, y = digits(6, torch.float64)
    whole = evaluate(model, start, x, y, 6)
    single = [evaluate(model, start, x[i : i + 1], y[i : i + 1], 1) for i in range(6)]
    assert whole is not None
    assert whole.correct == sum(s.correct for s in single if s)
    assert whole.loss == pytest.approx(np.mean([s.loss for s in single if s]), rel=1e-12)
    assert np.array_equal(model.read().buffers, start.buffers)


def test_it_scores_the_vector_and_not_what_was_loaded() -> None:
    model, vector = identity()
    model.load(ModelVector(-vector.parameters, vector.buffers))
    x = torch.eye(CLASSES, dtype=torch.float64)
    assert evaluate(model, vector, x, torch.arange(CLASSES), 3) == Score(
        4, 4, pytest.approx(math.log(math.e + 3) - 1)
    )
    assert not any(p.grad is not None and p.grad.any() for p in model.module.parameters())
