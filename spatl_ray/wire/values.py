"""Values as bytes: the bits of floats, or integers with their blocks' scales."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Bits
from spatl_ray.errors import WireError
from spatl_ray.parameters import Array
from spatl_ray.quantised import BITS, BLOCK, SCALE, Quantised, Small, most
from spatl_ray.update import VALUE_TYPES, Part

Take = Callable[[int], memoryview]
"""The next so many bytes of a message."""


def least_bytes(value_type: str, count: int) -> int:
    """The fewest bytes that so many values take: quantised ones those of their scales."""
    if value_type in BITS:
        return _blocks(count) * SCALE.itemsize
    size: int = VALUE_TYPES[value_type].itemsize
    return count * size


def value_bytes(part: Part) -> memoryview | bytes:
    """A part's values as they travel."""
    if part.quantised is None:
        return _bits(part.values)
    q = part.quantised
    sent = q.integers[_sent(q.scales, len(q.integers))]
    packed = sent.view(np.uint8) if q.bits == 8 else _paired(sent)
    return b"".join([_bits(q.scales), packed.data])


def read_values(data: memoryview, dtype: np.dtype[np.generic]) -> Array:
    """The values, a view of `data` where it is aligned for them and a copy elsewhere."""
    bits = np.frombuffer(data, dtype=f"<u{dtype.itemsize}")
    native = np.require(bits, dtype=f"=u{dtype.itemsize}", requirements="A")
    return frozen(native.view(dtype))


def read_quantised(take: Take, count: int, bits: int) -> Quantised:
    """Integers and scales of `count` values.

    Args:
        take: gives the next bytes.
        count: number of values.
        bits: of an integer.

    Raises:
        WireError: bytes that no encoder writes, or too few.
    """
    scales = read_values(take(_blocks(count) * SCALE.itemsize), SCALE)
    if np.signbit(scales).any() or np.isinf(scales).any():
        raise WireError("scales must be at least 0 and finite, or NaN")
    sent = _sent(scales, count)
    number = int(np.count_nonzero(sent))
    data = np.frombuffer(take(number if bits == 8 else -(-number // 2)), dtype=np.uint8)
    read = data.view(np.int8) if bits == 8 else _unpaired(data, number)
    if (read < -most(bits)).any():
        raise WireError(f"integers of {bits} bits must be at least {-most(bits)}, got less")
    integers = np.zeros(count, dtype=np.int8)
    integers[sent] = read
    return Quantised(bits, integers, scales)


def frozen(values: Array) -> Array:
    """The same array, not to be written to."""
    values.flags.writeable = False
    return values


def _blocks(count: int) -> int:
    """Number of blocks of so many values."""
    return -(-count // BLOCK)


def _sent(scales: Array, count: int) -> Bits:
    """Values whose block is sent: those of a scale that is not 0, shape (count,)."""
    return np.repeat(scales != 0, BLOCK)[:count]


def _paired(integers: Small) -> npt.NDArray[np.uint8]:
    """Two integers of 4 bits a byte, the first in the lower half; an odd one has 0 above it."""
    padded = np.zeros(-(-len(integers) // 2) * 2, dtype=np.uint8)
    padded[: len(integers)] = integers.view(np.uint8) & 0xF
    paired: npt.NDArray[np.uint8] = padded[::2] | (padded[1::2] << np.uint8(4))
    return paired


def _unpaired(data: npt.NDArray[np.uint8], count: int) -> Small:
    """The integers of 4 bits, shape (count,).

    Raises:
        WireError: what is above an odd last one is not 0.
    """
    halves = np.empty(2 * len(data), dtype=np.uint8)
    halves[::2], halves[1::2] = data & 0xF, data >> 4
    if halves[count:].any():
        raise WireError("the half of a byte behind the last integer must be 0")
    signed: Small = (halves << 4).view(np.int8)[:count] >> 4
    return signed


def _bits(values: Array) -> memoryview:
    """The values' bits as little-endian integers: no float conversion can touch a NaN."""
    bits = np.ascontiguousarray(values).view(f"u{values.itemsize}")
    return bits.astype(f"<u{values.itemsize}", copy=False).view(np.uint8).data
