"""Measured speeds of nodes, and the work that follows them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.engine.schedule import assign
from spatl_ray.engine.speeds import BAND, FADING, Speeds

NODES = ["a", "a", "b"]


def told(*seconds: float) -> list[tuple[int, float, float]]:
    """A client of cost 1 on each worker."""
    return [(worker, 1.0, took) for worker, took in enumerate(seconds)]


def test_all_are_equal_at_first() -> None:
    speeds = Speeds(NODES)
    speeds.learn([])
    speeds.learn(told(0.0, 0.0, 0.0))
    speeds.learn([(0, 1.0, 0.0), (2, 0.0, 1.0)])
    assert speeds.of_workers() == [1.0, 1.0, 1.0]


@given(st.floats(0.01, 100), st.floats(1e-3, 1e3))
def test_a_node_is_as_fast_as_its_clients_tell(ratio: float, unit: float) -> None:
    """Whatever the unit of the costs, which is samples first and seconds later."""
    speeds = Speeds(NODES)
    for scale in (1.0, unit):
        speeds.learn((w, scale, took) for w, _, took in told(ratio, ratio, 1.0))
    slow, same, fast = speeds.of_workers()
    assert slow == same
    if 1 / (1 + BAND) < ratio < 1 + BAND:
        assert fast == slow == 1.0
    elif not 0.85 < ratio < 1.2:
        assert fast / slow == pytest.approx(ratio)


def test_workers_of_one_node_are_equal_whatever_they_say() -> None:
    speeds = Speeds(["here"] * 3)
    for _ in range(3):
        speeds.learn(told(1.0, 2.0, 9.0))
    assert speeds.of_workers() == [1.0] * 3


def test_who_was_not_measured_has_the_mean() -> None:
    speeds = Speeds(["a", "b", "c"])
    speeds.learn(told(1.0, 4.0))
    fast, slow, unknown = speeds.of_workers()
    assert fast / slow == pytest.approx(4.0)
    assert unknown == pytest.approx((fast + slow) / 2)


def test_a_node_that_becomes_slow_is_noticed_and_forgiven() -> None:
    speeds = Speeds(["a", "b"])
    for seconds, ratio in ((3.0, 3.0), (1.0, 1.0)):
        for _ in range(100):
            speeds.learn(told(1.0, seconds))
        fast, slow = speeds.of_workers()
        assert fast / slow == pytest.approx(ratio, rel=2 * BAND)
    assert speeds.of_workers() == [1.0, 1.0]


def test_noise_scatters_no_clients() -> None:
    """Equal nodes whose clients take e^(0.2 z) seconds: of twenty clients, all stay at home.

    A node's mean of ten clients scatters by 0.2 / sqrt(10) = 6 % in a round, and over the rounds that
    `FADING` sums up, sqrt((1 - f) / (1 + f)) = 0.23 of that: the band is seven times as wide.
    """
    assert 5 * 0.2 / np.sqrt(10) * np.sqrt((1 - FADING) / (1 + FADING)) < BAND
    rng, speeds = np.random.default_rng(0), Speeds(["a", "b"])
    homes = [0, 1] * 10
    scattered = 0
    for _ in range(200):
        groups = assign([1.0] * 20, 2, homes, speeds.of_workers())
        scattered += sum(homes[i] != worker for worker, group in enumerate(groups) for i in group)
        took = np.exp(0.2 * rng.standard_normal(20))
        speeds.learn((worker, 1.0, took[i]) for worker, group in enumerate(groups) for i in group)
    assert scattered == 0


def test_a_round_ends_as_early_as_speeds_allow() -> None:
    """One node is four times as fast: after one round, each of its workers has four times the clients."""
    speeds, fast = Speeds(["a", "b"]), [4.0, 1.0]
    ends = []
    for _ in range(3):
        groups = assign([1.0] * 20, 2, None, speeds.of_workers())
        ends.append(max(len(group) / fast[worker] for worker, group in enumerate(groups)))
        speeds.learn((w, 1.0, 1 / fast[w]) for w, group in enumerate(groups) for _ in group)
    assert ends == [10.0, 4.0, 4.0]
