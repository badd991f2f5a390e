"""The bytes of a message: golden ones, and each fault that is named on either side."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from spatl_ray.errors import WireError
from spatl_ray.parameters import Array, ChannelGroup, Space, make_space
from spatl_ray.update import WHOLE, Mask, MaskKind, Part, Update, channel_mask, element_mask
from spatl_ray.wire.codec import decode_update, encode

Spaces = Mapping[str, Space]


def crc32(data: bytes) -> int:
    """CRC-32 (reflected polynomial 0xEDB88320) by long division, independent of zlib."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = (remainder >> 1) ^ (0xEDB88320 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def tiny() -> tuple[Update, Spaces]:
    """Three channels of one weight, the first and the last kept."""
    space = make_space([("w", "encoder", (3, 1), 0)], (ChannelGroup("w", 3, 0),))
    part = Part(
        channel_mask(np.array([True, False, True])), np.array([1.0, -2.0], dtype=np.float16)
    )
    return Update(round=1, client=2, steps=3, samples=4, parts={"d": part}), {"d": space}


def test_golden_update() -> None:
    # Derived from the layout in the module's docstring. Half precision: 1.0 is sign 0, exponent
    # 15 (bias 15), fraction 0 = 0x3C00; -2.0 is sign 1, exponent 16, fraction 0 = 0xC000.
    golden = (
        b"SPTL\x01\x01"  # magic, version 1, kind 1 (update)
        b"\x01\0\0\0"  # round 1
        b"\x02\0\0\0\0\0\0\0"  # client 2
        b"\x03\0\0\0\x04\0\0\0"  # steps 3, samples 4
        b"\x01"  # one part
        b"\x01d"  # its name
        b"\x01\x01"  # float16 is value type 1, CHANNEL is coding 1
        b"\x01\0\0\0\x02\0\0\0"  # one mask byte, two values
        b"\x05"  # channels 0 and 2
        b"\x00\x3c\x00\xc0"  # 1.0, -2.0, low byte first
    )
    update, spaces = tiny()
    assert encode(update, spaces) == golden + crc32(golden).to_bytes(4, "little")


def test_decoded_arrays_cannot_be_written() -> None:
    update, spaces = tiny()
    back = decode_update(memoryview(bytearray(encode(update, spaces))), spaces)
    with pytest.raises(ValueError, match="read-only"):
        back.parts["d"].values[0] = 0


@pytest.mark.parametrize(
    ("mask", "values", "fault"),
    [
        (WHOLE, np.zeros(2, np.float32), r"shape \(3,\)"),
        (WHOLE, np.zeros((3, 1), np.float32), r"shape \(3,\)"),
        (WHOLE, np.zeros(3, np.int32), "values must be one of"),
        (WHOLE, np.zeros(3, ">f4"), "values must be one of"),
        (channel_mask(np.ones(2, np.bool_)), np.zeros(3, np.float32), "must fit"),
        (element_mask(np.ones(4, np.bool_)), np.zeros(4, np.float32), "must fit"),
        (Mask(MaskKind.ELEMENT), np.zeros(3, np.float32), "must fit"),
        (Mask(MaskKind.WHOLE, np.ones(3, np.bool_)), np.zeros(3, np.float32), "must fit"),
    ],
)
def test_parts_that_do_not_fit_are_not_encoded(mask: Mask, values: Array, fault: str) -> None:
    update, spaces = tiny()
    with pytest.raises(WireError, match=fault):
        encode(replace(update, parts={"d": Part(mask, values)}), spaces)


@pytest.mark.parametrize("name", ["e", "", "ü", "x" * 256])
def test_unknown_and_unwritable_names_are_not_encoded(name: str) -> None:
    update, spaces = tiny()
    with pytest.raises(WireError, match="part"):
        encode(replace(update, parts={name: update.parts["d"]}), spaces)


@pytest.mark.parametrize(
    ("field", "numbers"),
    [
        ("round", (2**32, 2, 3, 4)),
        ("client", (1, 2**64, 3, 4)),
        ("steps", (1, 2, -1, 4)),
        ("samples", (1, 2, 3, 2**32)),
    ],
)
def test_numbers_that_do_not_fit_are_not_encoded(
    field: str, numbers: tuple[int, int, int, int]
) -> None:
    update, spaces = tiny()
    with pytest.raises(WireError, match=f"{field} must be in"):
        encode(Update(*numbers, update.parts), spaces)


def test_more_parts_than_a_byte_counts_are_not_encoded() -> None:
    update, spaces = tiny()
    names = [f"p{i}" for i in range(256)]
    many = replace(update, parts=dict.fromkeys(names, update.parts["d"]))
    with pytest.raises(WireError, match="parts must be in"):
        encode(many, dict.fromkeys(names, spaces["d"]))


def with_checksum(body: bytes) -> bytes:
    """The body and its checksum."""
    return body + struct.pack("<I", zlib.crc32(body))


def patched(offset: int, replacement: bytes) -> bytes:
    """The golden update with bytes replaced and the checksum made right."""
    update, spaces = tiny()
    body = bytearray(encode(update, spaces)[:-4])
    body[offset : offset + len(replacement)] = replacement
    return with_checksum(bytes(body))


# Offsets in the golden update: kind 5, parts 26, name length 27, name 28, value type 29, coding 30,
# mask bytes 31, number of values 35, mask 39, values 40, end 44.
@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (patched(0, b"X"), "begin with"),
        (patched(4, b"\x02"), "begin with"),
        (patched(5, b"\x00"), "kind must be 1"),
        (patched(5, b"\x09"), "kind must be 1"),
        (patched(0, b"")[:-1] + b"?", "checksum"),
        (patched(26, b"\x00"), "at least one part"),
        (patched(26, b"\x02"), "1 more bytes"),
        (patched(27, b"\xff"), "255 more bytes"),
        (patched(28, b"e"), "got 'e'"),
        (patched(28, b"\xff"), "must be one of"),
        (patched(29, b"\x06"), "value type"),
        (patched(30, b"\x09"), "coding 9"),
        (patched(30, b"\x04"), "coding 4"),  # SAME as part 5
        (patched(31, b"\x00"), "must fill 1 bytes, got 0"),
        (patched(31, b"\xff\xff\xff\xff"), "at most"),
        (patched(35, b"\xff\xff\xff\xff"), "at most"),
        (patched(35, b"\x03"), "at most"),
        (patched(35, b"\x01"), "as many positions"),
        (patched(39, b"\x07"), "as many positions"),
        (patched(39, b"\x0d"), "padding"),
        (patched(44, b"!"), "end with"),
    ],
)
def test_each_fault_of_a_payload_is_named(payload: bytes, fault: str) -> None:
    _, spaces = tiny()
    with pytest.raises(WireError, match=fault):
        decode_update(payload, spaces)


def test_a_part_that_comes_twice_is_refused() -> None:
    update, spaces = tiny()
    part = encode(update, spaces)[27:-4]
    with pytest.raises(WireError, match="once"):
        decode_update(with_checksum(patched(26, b"\x02")[:-4] + part), spaces)
