"""Masks as bytes: packed bits, Golomb-Rice coded gaps, or a reference to a mask already known.

Bit i of a packed stream is bit i mod 8 (lowest first) of byte i // 8; the last byte is filled up
with zeros. A Golomb-Rice stream of n kept positions is

    parameter k (u8) | n unary quotients, packed | n remainders of k bits each, packed

for the gaps g_i = position_i - position_(i-1) - 1 (position_(-1) = -1): the quotient g_i >> k is as
many zeros and a one, the remainder is the k low bits of g_i, lowest first.

References:
    S. W. Golomb, "Run-length encodings", IEEE Trans. Information Theory 12(3), 1966.
    R. F. Rice, "Some practical universal noiseless coding techniques", JPL 79-22, 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from spatl_ray.arrays import Bits, Integers
from spatl_ray.errors import WireError
from spatl_ray.parameters import Space
from spatl_ray.update import WHOLE, Mask, MaskKind

Buffer = bytes | memoryview

MAX_PARAMETER = 31
"""Largest k: with fewer than 2^32 gaps, a sum of remainders below 2^31 cannot leave an int64."""


class Coding(IntEnum):
    """How a mask is written; SAME and LAST refer to a mask that the other side has."""

    WHOLE = 0
    CHANNEL = 1
    BITMAP = 2
    RICE = 3
    SAME = 4
    LAST = 5


def packed_size(count: int) -> int:
    """Number of bytes that `count` bits fill: ceil(count / 8)."""
    return (count + 7) // 8


def pack_bits(bits: Bits) -> bytes:
    """Eight bits a byte, the lowest first."""
    return np.packbits(bits, bitorder="little").tobytes()


def unpack_bits(data: Buffer, count: int) -> Bits:
    """The inverse of `pack_bits`: a read-only array of shape (count,).

    Raises:
        WireError: another number of bytes than `count` bits fill, or padding that is not zero.
    """
    if len(data) != packed_size(count):
        raise WireError(f"{count} bits must fill {packed_size(count)} bytes, got {len(data)}")
    if count % 8 and data[-1] >> (count % 8):
        raise WireError(f"padding bits must be zero, got a last byte of {data[-1]:#04x}")
    raw = np.frombuffer(data, dtype=np.uint8)
    return _frozen(np.unpackbits(raw, count=count, bitorder="little").view(np.bool_))


def _frozen(bits: Bits) -> Bits:
    """`bits`, made read-only: several parts, and the memory of both sides, may share them."""
    bits.flags.writeable = False
    return bits


def _gaps(bits: Bits) -> Integers:
    """Number of dropped positions before each kept one."""
    return np.diff(np.flatnonzero(bits), prepend=-1) - 1


def _best_parameter(gaps: Integers) -> int:
    """The k of the shortest stream.

    k -> k + 1 adds n remainder bits and saves sum ceil(q / 2) unary ones, q = g >> k. The saving
    never grows with k, so the length is convex in k and the first k that does not pay is the best.
    """
    k = 0
    quotients = gaps
    while k < MAX_PARAMETER and int(np.sum((quotients + 1) >> 1)) > len(gaps):
        quotients = quotients >> 1
        k += 1
    return k


def _rice_size(gaps: Integers, k: int) -> int:
    """Number of bytes of the stream with parameter k."""
    unary = len(gaps) + int(np.sum(gaps >> k))
    return 1 + packed_size(unary) + packed_size(len(gaps) * k)


def _rice_stream(gaps: Integers, k: int) -> bytes:
    """The stream with parameter k."""
    terminators = np.cumsum((gaps >> k) + 1) - 1
    unary = np.zeros(int(terminators[-1]) + 1 if len(gaps) else 0, dtype=np.bool_)
    unary[terminators] = True
    remainders = np.empty((len(gaps), k), dtype=np.bool_)
    for bit in range(k):
        remainders[:, bit] = (gaps >> bit) & 1
    return bytes([k]) + pack_bits(unary) + pack_bits(remainders.ravel())


def rice_encode(bits: Bits) -> bytes:
    """The kept positions as a Golomb-Rice stream with the best parameter.

    Args:
        bits: shape (size,), True for a kept position.
    """
    gaps = _gaps(bits)
    return _rice_stream(gaps, _best_parameter(gaps))


def rice_decode(data: Buffer, size: int, count: int) -> Bits:
    """The inverse of `rice_encode`: a read-only array of shape (size,).

    Args:
        data: the stream.
        size: number of positions.
        count: number of kept ones, at most `size`.

    Raises:
        WireError: no stream of `count` positions below `size`, or bytes or bits left over.
    """
    k = data[0] if len(data) else MAX_PARAMETER + 1
    if k > MAX_PARAMETER:
        raise WireError(f"a Rice stream must start with k in [0, {MAX_PARAMETER}]")
    split = len(data) - packed_size(count * k)
    # Before anything is allocated: no valid stream has more zeros than size >> k.
    if not 1 <= split <= 1 + packed_size(count + (size >> k)):
        raise WireError(f"a Rice stream of {len(data)} bytes cannot hold {count} of {size} gaps")
    quotients = _quotients(data[1:split], count)
    remainders = _remainders(data[split:], count, k)
    # Python integers: a stream made up with large quotients must not wrap around.
    if (int(quotients.sum()) << k) + int(remainders.sum()) + count > size:
        raise WireError(f"a Rice stream must stay below position {size}")
    bits = np.zeros(size, dtype=np.bool_)
    bits[np.cumsum((quotients << k) + remainders + 1) - 1] = True
    return _frozen(bits)


def _quotients(data: Buffer, count: int) -> Integers:
    """`count` unary numbers: the zeros before each one; the last one lies in the last byte."""
    raw = np.frombuffer(data, dtype=np.uint8)
    terminators = np.flatnonzero(np.unpackbits(raw, bitorder="little"))
    end = int(terminators[-1]) + 1 if len(terminators) else 0
    if len(terminators) != count or packed_size(end) != len(data):
        raise WireError(
            f"a Rice stream must hold {count} quotients in {len(data)} bytes, "
            f"got {len(terminators)} in {packed_size(end)}"
        )
    return np.diff(terminators, prepend=-1) - 1


def _remainders(data: Buffer, count: int, k: int) -> Integers:
    """`count` numbers of k bits."""
    planes = unpack_bits(data, count * k).reshape(count, k)
    numbers = np.zeros(count, dtype=np.int64)
    for bit in range(k):
        numbers |= planes[:, bit].astype(np.int64) << bit
    return numbers


def fits(mask: Mask, space: Space) -> bool:
    """Whether the mask's bits have the shape that its kind needs in `space`."""
    if mask.kind is MaskKind.WHOLE or mask.bits is None:
        return mask.kind is MaskKind.WHOLE and mask.bits is None
    needed = space.channels if mask.kind is MaskKind.CHANNEL else space.size
    return mask.bits.shape == (needed,) and mask.bits.dtype == np.bool_


class Known(NamedTuple):
    """The masks that the other side has when it reads a part's mask.

    Attributes:
        earlier: those of the message's parts before this one, at most 255.
        last: the one that both sides remember for this part, if any.
    """

    earlier: Sequence[Mask] = ()
    last: Mask | None = None


def encode_mask(mask: Mask, known: Known) -> tuple[Coding, bytes]:
    """The cheapest coding of a mask that fits its space."""
    if mask.bits is None:
        return Coding.WHOLE, b""
    if mask == known.last:
        return Coding.LAST, b""
    if mask.bits.size and mask in known.earlier:  # no bits at all are cheaper than an index
        return Coding.SAME, bytes([known.earlier.index(mask)])
    if mask.kind is MaskKind.CHANNEL:
        return Coding.CHANNEL, pack_bits(mask.bits)
    gaps = _gaps(mask.bits)
    k = _best_parameter(gaps)
    if _rice_size(gaps, k) < packed_size(mask.bits.size):
        return Coding.RICE, _rice_stream(gaps, k)
    return Coding.BITMAP, pack_bits(mask.bits)


def decode_mask(coding: int, data: Buffer, space: Space, count: int, known: Known) -> Mask:
    """The inverse of `encode_mask`.

    Args:
        coding: the coding's byte.
        data: the mask's bytes.
        space: what the mask selects from.
        count: number of positions it must keep, at most space.size.
        known: the masks that it may refer to.

    Raises:
        WireError: bytes that are no mask of `count` positions in `space`.
    """
    mask = _read_mask(coding, data, space, count, known)
    if not fits(mask, space):
        raise WireError(f"a {mask.kind.name} mask referred to must fit a space of {space.size}")
    kept = mask.count(space)
    if kept != count:
        raise WireError(f"a mask must keep as many positions as there are values: {kept}, {count}")
    return mask


def _read_mask(coding: int, data: Buffer, space: Space, count: int, known: Known) -> Mask:
    """The mask as written, not yet held against `space` and `count`."""
    if coding == Coding.CHANNEL:
        return Mask(MaskKind.CHANNEL, unpack_bits(data, space.channels))
    if coding == Coding.BITMAP:
        return Mask(MaskKind.ELEMENT, unpack_bits(data, space.size))
    if coding == Coding.RICE:
        return Mask(MaskKind.ELEMENT, rice_decode(data, space.size, count))
    if coding == Coding.SAME and len(data) == 1 and data[0] < len(known.earlier):
        return known.earlier[data[0]]
    if coding == Coding.LAST and len(data) == 0 and known.last is not None:
        return known.last
    if coding == Coding.WHOLE and len(data) == 0:
        return WHOLE
    raise WireError(
        f"a mask's coding must be known and its bytes and reference be there, got coding {coding} "
        f"with {len(data)} bytes, {len(known.earlier)} earlier masks, "
        f"{'no' if known.last is None else 'one'} remembered"
    )
