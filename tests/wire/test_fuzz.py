"""Damaged payloads: a WireError or a valid message, nothing else, and no large allocation."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from damaged_payloads import LAST, MUTATIONS, SPACES, UPDATE, Mutation, fuzz

from spatl_ray.errors import WireError
from spatl_ray.parameters import Space, make_space
from spatl_ray.wire.codec import decode_broadcast, decode_update, encode
from spatl_ray.wire.masks import Coding


def test_the_messages_use_every_coding() -> None:
    body = encode(UPDATE, SPACES, LAST)
    found = [body[body.find(name.encode()) + len(name) + 1] for name in SPACES]
    assert found == list(Coding)


@pytest.mark.parametrize("mutate", MUTATIONS)
@pytest.mark.parametrize("right_checksum", [False, True])
def test_damaged_payloads_raise_nothing_else(mutate: Mutation, right_checksum: bool) -> None:
    faults = fuzz([mutate], 600, right_checksum, seed=5)
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
