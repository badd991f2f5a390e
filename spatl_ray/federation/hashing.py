"""Random numbers by index: any of them alone, in any order, without those before it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio: the step of SplitMix64's state."""

FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def words(key: int, index: npt.NDArray[np.int64]) -> Words:
    """The outputs number `index` (from 0) of a SplitMix64 generator whose state is `key`.

    Args:
        key: the state, in [0, 2**64).
        index: which outputs, each at least 0.

    References:
        Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; constants
        as in Vigna's splitmix64.c and Java's SplittableRandom.
    """
    z = np.uint64(key) + (index.astype(np.uint64) + np.uint64(1)) * GAMMA
    z = (z ^ (z >> np.uint64(30))) * FIRST
    z = (z ^ (z >> np.uint64(27))) * SECOND
    return z ^ (z >> np.uint64(31))


def uniform(key: int, index: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The upper 53 bits of `words` as multiples of 2**-53 in [0, 1)."""
    upper = (words(key, index) >> np.uint64(11)).astype(np.float64)
    return upper * 2.0**-53
