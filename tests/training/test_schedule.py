"""Learning rates over rounds, and the normalising sum against a simulated constant gradient."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.config import Training
from spatl_ray.training.schedule import learning_rate, normaliser


@given(st.integers(0, 300), st.floats(0, 0.999))
@settings(deadline=None, max_examples=60)
def test_the_normaliser_is_how_far_a_constant_gradient_moves(steps: int, rho: float) -> None:
    velocity = moved = 0.0
    for _ in range(steps):
        velocity = rho * velocity + 1
        moved += velocity
    assert normaliser(steps, rho) == pytest.approx(moved, rel=1e-9)


@given(st.integers(0, 10_000))
def test_without_momentum_it_counts_steps(steps: int) -> None:
    assert normaliser(steps, 0.0) == steps


@given(st.integers(1, 1000), st.floats(0, 0.99))
def test_it_lies_between_the_steps_and_their_limit(steps: int, rho: float) -> None:
    assert steps * (1 - 1e-9) <= normaliser(steps, rho) <= steps / (1 - rho) * (1 + 1e-9)


@given(st.integers(1, 1000), st.data())
def test_constant(rounds: int, data: st.DataObject) -> None:
    round_ = data.draw(st.integers(0, rounds - 1))
    assert learning_rate(Training(lr=0.3), round_, rounds) == 0.3


@given(st.integers(0, 100), st.floats(0.5, 1))
def test_exponential(round_: int, decay: float) -> None:
    training = Training(lr=0.3, schedule="exponential", decay=decay)
    expected = 0.3
    for _ in range(round_):
        expected *= decay
    assert learning_rate(training, round_, 1000) == pytest.approx(expected)


@given(st.integers(1, 500))
def test_cosine_falls_from_lr_towards_0(half: int) -> None:
    training = Training(lr=0.3, schedule="cosine")
    rates = [learning_rate(training, t, 2 * half) for t in range(2 * half)]
    assert rates[0] == 0.3
    assert rates[half] == pytest.approx(0.15)
    assert all(a > b > 0 for a, b in pairwise(rates))
    # Point symmetry of the cosine: lr(t) + lr(T - t) = lr.
    assert all(a + b == pytest.approx(0.3) for a, b in zip(rates[1:], rates[:0:-1], strict=True))
