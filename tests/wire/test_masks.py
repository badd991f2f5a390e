"""Packed bits and Golomb-Rice streams: inverses, lengths, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spatl_ray.arrays import Bits
from spatl_ray.errors import WireError
from spatl_ray.parameters import Space, make_space
from spatl_ray.update import MaskKind, channel_mask, element_mask
from spatl_ray.wire.masks import (
    MAX_PARAMETER,
    Coding,
    Known,
    decode_mask,
    encode_mask,
    pack_bits,
    rice_decode,
    rice_encode,
    unpack_bits,
)

bit_arrays = hnp.arrays(np.bool_, st.integers(0, 200))


@st.composite
def sparse_arrays(draw: st.DrawFn) -> Bits:
    """Few kept positions among many, so that gaps of every length occur."""
    size = draw(st.integers(1, 5000))
    bits = np.zeros(size, dtype=np.bool_)
    bits[draw(st.lists(st.integers(0, size - 1), max_size=20))] = True
    return bits


def random_mask(density: float, size: int = 100_000) -> Bits:
    """Independent bits."""
    return np.random.default_rng(7).random(size) < density


def flat(size: int) -> Space:
    """A space of one tensor without channel groups."""
    return make_space([("w", "encoder", (size,), -1)])


def entropy(bits: Bits) -> float:
    """Bits that no code of a random mask of this density can go below: N H(p)."""
    p = float(bits.mean())
    return -bits.size * (p * math.log2(p) + (1 - p) * math.log2(1 - p))


@given(bit_arrays)
@settings(deadline=None, max_examples=50)
def test_packed_bits_come_back(bits: Bits) -> None:
    data = pack_bits(bits)
    assert len(data) == math.ceil(bits.size / 8)
    assert np.array_equal(unpack_bits(data, bits.size), bits)


@given(st.one_of(bit_arrays, sparse_arrays()))
@settings(deadline=None, max_examples=60)
def test_rice_streams_come_back(bits: Bits) -> None:
    count = int(bits.sum())
    assert np.array_equal(rice_decode(rice_encode(bits), bits.size, count), bits)


@given(st.one_of(bit_arrays, sparse_arrays()))
@settings(deadline=None, max_examples=60)
def test_the_rice_parameter_is_the_best(bits: Bits) -> None:
    gaps = np.diff(np.flatnonzero(bits), prepend=-1) - 1
    # n terminators and n k remainder bits, plus the quotients: the definition of the code.
    bits_at = [int((gaps >> k).sum()) + gaps.size * (k + 1) for k in range(MAX_PARAMETER + 1)]
    assert bits_at[rice_encode(bits)[0]] == min(bits_at)


def test_golden_packed_bits() -> None:
    # Bit i is bit i % 8 of byte i // 8: {0, 2, 7} -> 1 + 4 + 128, {9} -> 2.
    bits = np.isin(np.arange(10), [0, 2, 7, 9])
    assert pack_bits(bits) == bytes([133, 2])


def test_golden_rice_stream() -> None:
    # Positions 0 4 5 17 have gaps 0 3 0 11. Lengths: k = 0: 14 + 4 = 18 bits; k = 1: quotients
    # 0 1 0 5, 6 + 4 + 4 = 14; k = 2: quotients 0 0 0 2, 2 + 4 + 8 = 14; the first of the best is 1.
    # Unary 1 01 1 000001, lowest bit first: 1011 0000 = 0x0D, 01 = 0x02.
    # Remainders mod 2: 0 1 0 1 = 0x0A.
    bits = np.isin(np.arange(20), [0, 4, 5, 17])
    assert rice_encode(bits) == bytes([1, 0x0D, 0x02, 0x0A])


@pytest.mark.parametrize("density", [0.1, 0.01])
def test_sparse_masks_come_within_15_percent_of_the_entropy(density: float) -> None:
    bits = random_mask(density)
    coding, data = encode_mask(element_mask(bits), Known())
    assert coding is Coding.RICE
    assert entropy(bits) <= 8 * len(data) <= 1.15 * entropy(bits)


def test_a_half_kept_mask_is_a_bitmap_of_one_bit_a_position() -> None:
    bits = random_mask(0.5)
    coding, data = encode_mask(element_mask(bits), Known())
    assert coding is Coding.BITMAP
    assert 8 * len(data) == bits.size


@given(st.one_of(bit_arrays, sparse_arrays()))
@settings(deadline=None, max_examples=60)
def test_an_element_mask_takes_the_shorter_of_both_codes(bits: Bits) -> None:
    _, data = encode_mask(element_mask(bits), Known())
    assert len(data) == min(len(pack_bits(bits)), len(rice_encode(bits)))


def test_decoded_bits_are_read_only() -> None:
    bits = random_mask(0.1, 100)
    for decoded in (
        unpack_bits(pack_bits(bits), 100),
        rice_decode(rice_encode(bits), 100, bits.sum()),
    ):
        with pytest.raises(ValueError, match="read-only"):
            decoded[0] = True


@pytest.mark.parametrize("data", [b"", b"\x01\x00", b"\x08"])
def test_packed_bits_of_wrong_length_or_padding_are_refused(data: bytes) -> None:
    with pytest.raises(WireError, match=r"must fill|padding"):
        unpack_bits(data, 3)


@pytest.mark.parametrize(
    ("size", "data", "fault"),
    [
        (20, b"", "start with k"),
        (20, bytes([32, 0x0D, 0x02, 0x0A]), "start with k"),
        (20, bytes([1]), "cannot hold"),  # neither quotients nor remainders
        (20, bytes([1, 0x0D, 0x0A]), "4 quotients"),  # the last terminator is missing
        (20, bytes([1, 0x0D, 0x06, 0x0A]), "4 quotients"),  # one terminator too many
        (
            40,
            bytes([1, 0x0D, 0x02, 0x00, 0x0A]),
            "4 quotients",
        ),  # a byte behind the last terminator
        (20, bytes([1, 0x0D, 0x02, 0x00, 0x00, 0x0A]), "cannot hold"),  # more zeros than fit
        (20, bytes([1, 0x0D, 0x02, 0x1A]), "padding"),  # a fifth remainder
        (17, bytes([1, 0x0D, 0x02, 0x0A]), "below position"),  # position 17 of 17
        (20, bytes([1, 0x0D, 0x10, 0x0A]), "below position"),  # last quotient 8: position 23 of 20
    ],
)
def test_broken_rice_streams_are_refused(size: int, data: bytes, fault: str) -> None:
    with pytest.raises(WireError, match=fault):
        rice_decode(data, size, 4)


def test_quotients_that_would_wrap_around_are_refused() -> None:
    # Two quotients of 1 at k = 31 name positions beyond 2^32; a size of 2^31 has room for one zero.
    data = bytes([31, 0b1010]) + bytes(8)
    with pytest.raises(WireError, match="below position"):
        rice_decode(data, 1 << 31, 2)


def test_last_goes_before_same_and_same_before_bits() -> None:
    bits = np.array([True, False, True])
    mask, other = channel_mask(bits), channel_mask(~bits)
    assert encode_mask(mask, Known([mask], mask)) == (Coding.LAST, b"")
    assert encode_mask(mask, Known([other, mask])) == (Coding.SAME, b"\x01")
    assert encode_mask(mask, Known([other])) == (Coding.CHANNEL, b"\x05")


def test_no_bits_are_cheaper_than_a_reference() -> None:
    mask = channel_mask(np.zeros(0, dtype=np.bool_))
    assert encode_mask(mask, Known([mask])) == (Coding.CHANNEL, b"")


def test_masks_of_another_kind_are_not_the_same() -> None:
    bits = np.array([True, False, True])
    coding, _ = encode_mask(element_mask(bits), Known([channel_mask(bits)], channel_mask(bits)))
    assert coding is Coding.BITMAP


@pytest.mark.parametrize(
    ("coding", "data", "known"),
    [
        (Coding.LAST, b"", Known()),
        (Coding.LAST, b"\x00", Known((), element_mask(np.ones(3, np.bool_)))),
        (Coding.LAST, b"", Known((), element_mask(np.arange(4) > 0))),  # three kept, but of four
        (Coding.SAME, b"\x00", Known()),
        (Coding.SAME, b"\x01", Known([element_mask(np.ones(3, np.bool_))])),
        (Coding.SAME, b"", Known([element_mask(np.ones(3, np.bool_))])),
        (Coding.SAME, b"\x00", Known([element_mask(np.arange(4) > 0)])),
        (Coding.WHOLE, b"\x07", Known()),
        (Coding.BITMAP, b"\x03", Known()),  # two kept, three values
        (6, b"", Known()),
    ],
)
def test_references_and_counts_that_do_not_fit_are_refused(
    coding: int, data: bytes, known: Known
) -> None:
    with pytest.raises(WireError):
        decode_mask(coding, data, flat(3), 3, known)


def test_a_reference_gives_the_mask_it_refers_to() -> None:
    mask = element_mask(np.array([True, False, True]))
    assert decode_mask(Coding.LAST, b"", flat(3), 2, Known((), mask)) == mask
    assert decode_mask(Coding.SAME, b"\x00", flat(3), 2, Known([mask])) == mask
    assert mask.kind is MaskKind.ELEMENT
