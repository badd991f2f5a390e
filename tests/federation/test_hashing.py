"""Numbers by index are those of a SplitMix64 generator."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spatl_ray.federation import hashing

keys = st.integers(0, 2**64 - 1)
MASK = 2**64 - 1


def one_after_the_other(state: int, count: int) -> list[int]:
    """The generator as published, in Python's integers."""
    outputs = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        outputs.append(z ^ (z >> 31))
    return outputs


def test_published_outputs() -> None:
    """Of the state 1234567, from Rosetta Code's page on Splitmix64."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert hashing.words(1234567, np.arange(3)).tolist() == expected


@given(key=keys, count=st.integers(1, 50))
def test_an_index_is_a_place_in_the_sequence(key: int, count: int) -> None:
    assert hashing.words(key, np.arange(count)).tolist() == one_after_the_other(key, count)


@given(key=keys, index=st.lists(st.integers(0, 2**32), max_size=30))
def test_any_index_alone(key: int, index: list[int]) -> None:
    together = hashing.words(key, np.array(index, np.int64))
    alone = [int(hashing.words(key, np.array([i]))[0]) for i in index]
    assert together.tolist() == alone


def test_uniform_is_uniform() -> None:
    values = hashing.uniform(7, np.arange(20_000))
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-6
