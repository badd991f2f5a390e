"""Payloads that are damaged at random, and what the decoder makes of them."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from spatl_ray.errors import WireError
from spatl_ray.parameters import ChannelGroup, make_space
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


def fuzz(
    mutations: Sequence[Mutation], count: int, right_checksum: bool, seed: int
) -> Counter[str]:
    """How often a damaged payload was decoded (`valid`), or refused with each kind of WireError.

    Anything else that the decoder does is a fault: another exception, a damaged payload under its old
    checksum that passes, or a message that does not survive another round trip.
    """
    rng = np.random.default_rng(seed)
    bodies = [encode(message, SPACES, LAST)[:-4] for message in (UPDATE, BROADCAST)]
    found: Counter[str] = Counter()
    for i in range(count):
        body = bytearray(bodies[i % 2])
        original = bytes(body)
        mutations[i // 2 % len(mutations)](body, rng)
        checksum = zlib.crc32(body if right_checksum else original)
        damaged = bytes(body) + struct.pack("<I", checksum)
        decode = (decode_update, decode_broadcast)[i % 2]
        try:
            decoded = decode(damaged, SPACES, LAST)
        except WireError as error:
            found[str(error).partition(",")[0]] += 1
            continue
        assert right_checksum or bytes(body) == original
        again = encode(decoded, SPACES, LAST)
        assert encode(decode(again, SPACES, LAST), SPACES, LAST) == again
        found["valid"] += 1
    return found
