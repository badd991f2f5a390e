"""Damaged payloads: a WireError or a valid message, nothing else, and no large allocation."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from spatl_ray.errors import WireError
from spatl_ray.parameters import ChannelGroup, Space, make_space
from spatl_ray.update import (
    VALUE_TYPES,
    WHOLE,
    Broadcast,
    Mask,
    Part,
    Update,
    channel_mask,
    element_mask,
)
from spatl_ray.wire.codec import decode_broadcast, decode_update, encode
from spatl_ray.wire.masks import Coding

Mutation = Callable[[bytearray, np.random.Generator], None]

SPACE = make_space([("w", "encoder", (20, 10), 0)], (ChannelGroup("w", 20, 0),))
SPACES = dict.fromkeys(("whole", "channel", "bitmap", "rice", "same", "last"), SPACE)


def part(mask: Mask, value_type: str) -> Part:
    """Counting values at the kept positions."""
    return Part(mask, np.arange(mask.count(SPACE)).astype(VALUE_TYPES[value_type]))


CHANNELS = channel_mask(np.arange(20) % 2 == 0)
EVERY_CODING = {
    "whole": part(WHOLE, "float16"),
    "channel": part(CHANNELS, "float32"),
    "bitmap": part(element_mask(np.arange(200) % 2 == 0), "bfloat16"),
    "rice": part(element_mask(np.arange(200) % 19 == 3), "float64"),
    "same": part(CHANNELS, "bfloat16"),
    "last": part(element_mask(np.arange(200) % 7 == 1), "float32"),
}
LAST = {"last": EVERY_CODING["last"].mask}
UPDATE = Update(1, 2, 3, 4, EVERY_CODING)
BROADCAST = Broadcast(1, EVERY_CODING)


def flip(body: bytearray, rng: np.random.Generator) -> None:
    """One bit."""
    body[rng.integers(len(body))] ^= 1 << int(rng.integers(8))


def overwrite(body: bytearray, rng: np.random.Generator) -> None:
    """Some bytes, by random ones or by extreme lengths."""
    at = int(rng.integers(len(body)))
    new = rng.bytes(int(rng.integers(1, 5))) if rng.random() < 0.5 else b"\xff\xff\xff\xff"
    body[at : at + len(new)] = new


def truncate(body: bytearray, rng: np.random.Generator) -> None:
    """The end goes."""
    del body[int(rng.integers(len(body))) :]


def insert(body: bytearray, rng: np.random.Generator) -> None:
    """Bytes from nowhere."""
    at = int(rng.integers(len(body) + 1))
    body[at:at] = rng.bytes(int(rng.integers(1, 9)))


def remove(body: bytearray, rng: np.random.Generator) -> None:
    """Bytes out of the middle."""
    at = int(rng.integers(len(body)))
    del body[at : at + int(rng.integers(1, 9))]


def aimed(body: bytearray, rng: np.random.Generator) -> None:
    """A field of some part: its type, coding, lengths, or the first bytes of its mask."""
    name = str(rng.choice(list(SPACES))).encode()
    at = body.find(bytes([len(name)]) + name) + 1 + len(name) + int(rng.integers(14))
    body[at] = int(rng.integers(8)) if rng.random() < 0.5 else int(rng.integers(256))


MUTATIONS: tuple[Mutation, ...] = (flip, overwrite, truncate, insert, remove, aimed)


def test_the_messages_use_every_coding() -> None:
    body = encode(UPDATE, SPACES, LAST)
    found = [body[body.find(name.encode()) + len(name) + 1] for name in SPACES]
    assert found == list(Coding)


@pytest.mark.parametrize("mutate", MUTATIONS)
@pytest.mark.parametrize("right_checksum", [False, True])
def test_damaged_payloads_raise_nothing_else(mutate: Mutation, right_checksum: bool) -> None:
    rng = np.random.default_rng(5)
    bodies = [encode(message, SPACES, LAST)[:-4] for message in (UPDATE, BROADCAST)]
    faults = set()
    for i in range(600):
        body = bytearray(bodies[i % 2])
        original = bytes(body)
        mutate(body, rng)
        checksum = zlib.crc32(body if right_checksum else original)
        damaged = bytes(body) + struct.pack("<I", checksum)
        decode = (decode_update, decode_broadcast)[i % 2]
        try:
            decoded = decode(damaged, SPACES, LAST)
        except WireError as error:
            faults.add(str(error).partition(",")[0])
            continue
        assert right_checksum or bytes(body) == original
        again = encode(decoded, SPACES, LAST)
        assert encode(decode(again, SPACES, LAST), SPACES, LAST) == again
    assert len(faults) > (5 if right_checksum else 0)


@pytest.mark.parametrize("right_checksum", [False, True])
def test_no_prefix_of_a_payload_is_a_payload(right_checksum: bool) -> None:
    payload = encode(UPDATE, SPACES, LAST)
    for end in range(len(payload)):
        body = payload[:end]
        damaged = body + struct.pack("<I", zlib.crc32(body)) if right_checksum else body
        if damaged == payload:
            continue
        with pytest.raises(WireError):
            decode_update(damaged, SPACES, LAST)


def test_random_bytes_are_no_message() -> None:
    rng = np.random.default_rng(6)
    for length in range(300):
        body = b"SPTL\x01\x01" + rng.bytes(length)
        with pytest.raises(WireError):
            decode_update(body + struct.pack("<I", zlib.crc32(body)), SPACES, LAST)


@pytest.mark.parametrize("coding", list(Coding))
def test_lengths_are_checked_before_anything_is_allocated(coding: Coding) -> None:
    huge = {"d": Space(make_space([("w", "encoder", (1 << 31,), -1)]).segments)}
    for mask_size, count in [(0, 1 << 31), (1 << 28, 0), (4, 1 << 31), (4, 1)]:
        fields = struct.pack("<BBII", 0, coding, mask_size, count)
        body = b"SPTL\x01\x00" + struct.pack("<IB", 0, 1) + b"\x01d" + fields + bytes(8)
        tracemalloc.start()
        with pytest.raises(WireError):
            decode_broadcast(body + struct.pack("<I", zlib.crc32(body)), huge)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100_000
