"""Values in few bits: blocks of integers, each with a scale.

A block of `BLOCK` values v is sent as integers q and one scale s, a bfloat16: v is about s q, with |q| at
most 2^(bits - 1) - 1. s is the smallest bfloat16 at which the block's largest value fits. The products
are exact in float32, so that what is summed is what was sent, to the bit.

References:
    Alistarh et al., "QSGD: Communication-efficient SGD via gradient quantization and encoding", NeurIPS 2017:
    stochastic rounding by blocks, here with the largest magnitude as the norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt

from spatl_ray.parameters import Array

BLOCK = 64
"""Values that share a scale."""

BITS: Mapping[str, int] = {"int8": 8, "int4": 4}
"""Bits of an integer, by the name of its value type."""

SCALE: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)

Small = npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Quantised:
    """Integers and scales of a vector.

    Attributes:
        bits: of an integer on the wire: 8 or 4.
        integers: q, shape (n,).
        scales: s, shape (ceil(n / BLOCK),), in bfloat16.
    """

    bits: int
    integers: Small
    scales: Array

    @property
    def values(self) -> Array:
        """s q, shape (n,), in float32; all of a block are NaN if its scale is."""
        scales = np.repeat(self.scales.astype(np.float32), BLOCK)[: len(self.integers)]
        with np.errstate(over="ignore"):
            found: Array = self.integers.astype(np.float32) * scales
        return found


def most(bits: int) -> int:
    """The largest integer of so many bits: 2^(bits - 1) - 1."""
    return (1 << (bits - 1)) - 1


def quantise(vector: Array, bits: int, generator: np.random.Generator | None = None) -> Quantised:
    """A vector in few bits; a block that holds NaN, infinity or what is nearly that gets the scale NaN.

    Args:
        vector: v, shape (n,).
        bits: 8 or 4.
        generator: rounds stochastically, floor(v / s + u) with u uniform in [0, 1), so that the mean is v;
            without, to the nearest, ties to even.
    """
    blocks = _blocks(vector)
    scales = _scales(np.abs(blocks).max(axis=1, initial=0.0), bits)
    steps = scales.astype(np.float32)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        quotients = np.where(steps > 0, blocks / steps, np.float32(0))
    if generator is None:
        rounded = np.rint(quotients)
    else:
        rounded = np.floor(quotients + generator.random(blocks.shape, dtype=np.float32))
    limit = most(bits)
    integers = np.clip(np.nan_to_num(rounded, nan=0.0), -limit, limit).astype(np.int8)
    return Quantised(bits, integers.reshape(-1)[: len(vector)].copy(), scales)


def _blocks(vector: Array) -> npt.NDArray[np.float32]:
    """The values in float32, shape (blocks, BLOCK); the last block is filled up with zeros."""
    padded = np.zeros(-(-len(vector) // BLOCK) * BLOCK, dtype=np.float32)
    with np.errstate(over="ignore"):
        padded[: len(vector)] = vector
    return padded.reshape(-1, BLOCK)


def _scales(largest: npt.NDArray[np.float32], bits: int) -> Array:
    """The least bfloat16 of at least largest / (2^(bits - 1) - 1): its upper bits, one more if any are cut.

    It is NaN where that times 2^(bits - 1) - 1 is no finite float32.
    """
    limit = np.float32(most(bits))
    upper = ((largest / limit).view(np.uint32).astype(np.uint64) + 0xFFFF) >> 16
    found: Array = upper.astype(np.uint16).view(SCALE)
    with np.errstate(over="ignore"):
        found[~np.isfinite(found.astype(np.float32) * limit)] = np.nan
    return found
