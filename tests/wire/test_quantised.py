"""Values in few bits: what is decoded is what was summed, unbiased, near, and costs what the formula says."""

from __future__ import annotations

import struct
import zlib

import ml_dtypes
import numpy as np
import pytest
from damaged_payloads import MUTATIONS, Mutation
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spatl_ray.errors import WireError
from spatl_ray.parameters import Array, Space, make_space
from spatl_ray.quantised import BITS, BLOCK, most, quantise
from spatl_ray.update import WHOLE, Part, Update, cast, element_mask, keep
from spatl_ray.wire.codec import decode_update, encode

KINDS = pytest.mark.parametrize("kind", list(BITS))
VALUES = hnp.arrays(np.float32, st.integers(1, 3 * BLOCK), elements=st.floats(width=32))


def payload_of(part: Part, size: int) -> bytes:
    return encode(Update(0, 0, 1, 1, {"d": part}), spaces(size))


def spaces(size: int) -> dict[str, Space]:
    return {"d": make_space([("w", "encoder", (size,), -1)])}


def sent(part: Part, size: int) -> Part:
    return decode_update(payload_of(part, size), spaces(size)).parts["d"]


@KINDS
@given(values=VALUES, seed=st.none() | st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_decoded_is_what_was_encoded(kind: str, values: Array, seed: int | None) -> None:
    """Also where blocks hold NaN or infinity, which then are NaN, and the server rejects."""
    generator = None if seed is None else np.random.default_rng(seed)
    part = cast(WHOLE, values, kind, generator)
    again = sent(part, len(values))
    assert again.values.dtype == np.float32
    assert again.values.tobytes() == part.values.tobytes()
    assert payload_of(again, len(values)) == payload_of(part, len(values))
    blocks = range(0, len(values), BLOCK)
    for start in blocks:
        block, found = (a[start : start + BLOCK] for a in (values, part.values))
        if (np.abs(block) < 3.3e38).all():
            assert np.isfinite(found).all()
        if not np.isfinite(block).all():
            assert np.isnan(found).all()


@KINDS
@given(values=hnp.arrays(np.float32, BLOCK, elements=st.floats(-(2.0**90), 2.0**90, width=32)))
@settings(max_examples=60, deadline=None)
def test_rounding_is_to_the_nearest_or_within_a_step(kind: str, values: Array) -> None:
    """A step is the largest value's share of 127 or 7, and at most 1/128 more for the bfloat16."""
    largest = np.abs(values).max()
    nearest, drawn = (quantise(values, BITS[kind], g) for g in (None, np.random.default_rng(0)))
    step = float(nearest.scales[0])
    assert step * most(BITS[kind]) >= largest
    tiny = float(ml_dtypes.finfo(ml_dtypes.bfloat16).smallest_subnormal)
    assert step <= largest / most(BITS[kind]) * (1 + 1 / 128) * (1 + 1e-6) + tiny
    assert (np.abs(values - nearest.values) <= step / 2 * (1 + 1e-6)).all()
    assert (np.abs(values - drawn.values) <= step * (1 + 1e-6)).all()


@KINDS
def test_stochastic_rounding_is_unbiased(kind: str) -> None:
    """Of 4,000 draws the mean is within five standard errors, of which one is at most s / 2 / sqrt(4000)."""
    generator = np.random.default_rng(1)
    values = generator.normal(size=BLOCK).astype(np.float32)
    drawn = [quantise(values, BITS[kind], generator) for _ in range(4000)]
    mean = np.mean([each.values for each in drawn], axis=0, dtype=np.float64)
    error = float(drawn[0].scales[0]) / 2 / np.sqrt(4000)
    assert (np.abs(mean - values) < 5 * error).all()
    assert np.unique([each.integers[3] for each in drawn]).size == 2


def test_a_message_costs_scales_and_the_integers_of_blocks_that_are_not_zero() -> None:
    """31 bytes an update, 11 + 1 the part; 2 a block, and 1 or half a byte a value."""
    size = 2 * BLOCK + 7
    values = np.ones(size, np.float32)
    values[BLOCK : 2 * BLOCK] = 0
    for kind, bytes_ in (("int8", BLOCK + 7), ("int4", (BLOCK + 7 + 1) // 2)):
        assert len(payload_of(cast(WHOLE, values, kind), size)) == 31 + 12 + 3 * 2 + bytes_


def test_golden_bytes() -> None:
    """1, -0.5 and 0 in steps of 1/7, which is 0x3E13 as the next larger bfloat16."""
    part = cast(WHOLE, np.array([1.0, -0.5, 0.0], np.float32), "int4")
    assert payload_of(part, 3)[28 + 11 : -4] == bytes.fromhex("133ed700")
    assert part.values.tolist() == [7 * 0.1435546875, -3 * 0.1435546875, 0.0]


@KINDS
def test_only_kept_positions_are_sent(kind: str) -> None:
    vector = np.arange(200, dtype=np.float32)
    mask = element_mask(vector % 2 == 1)
    part = sent(keep(vector, mask, spaces(200)["d"], kind), 200)
    assert part.mask == mask
    assert part.value_type == kind
    assert np.abs(part.values - vector[1::2]).max() <= 0.6 * 199 / most(BITS[kind])


def with_values(values: bytes, kind: int, count: int) -> bytes:
    """A right message but for its values."""
    good = payload_of(cast(WHOLE, np.ones(count, np.float32), "int8"), count)
    head = bytearray(good[: 28 + 11])
    head[29] = kind
    return with_checksum(bytes(head) + values)


def with_checksum(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("values", "kind", "fault"),
    [
        (b"\x80\xbf\x01\x01\x01", 4, "at least 0 and finite"),  # -1
        (b"\x80\x7f\x01\x01\x01", 4, "at least 0 and finite"),  # infinity
        (b"\x80\x3f\x01\x80\x01", 4, "at least -127"),
        (b"\x80\x3f\x18\x01", 5, "at least -7"),
        (b"\x80\x3f\x11\x11", 5, "must be 0"),
        (b"\x80\x3f\x01\x01", 4, "3 more bytes, got 2"),
        (b"\x80", 4, "at most 3 values and 1 bytes"),
        (b"\x00\x00\x01", 4, "end with its last part"),  # a block of scale 0 has no integers
    ],
)
def test_what_no_encoder_writes_is_refused(values: bytes, kind: int, fault: str) -> None:
    with pytest.raises(WireError, match=fault):
        decode_update(with_values(values, kind, 3), spaces(3))


@KINDS
@pytest.mark.parametrize("mutate", MUTATIONS)
def test_damaged_payloads_raise_nothing_else(kind: str, mutate: Mutation) -> None:
    """Under a checksum that fits: a WireError, or a message that encodes to the same bytes."""
    generator = np.random.default_rng(7)
    good = payload_of(cast(WHOLE, generator.normal(size=150).astype(np.float32), kind), 150)
    for _ in range(300):
        body = bytearray(good[:-4])
        mutate(body, generator)
        payload = with_checksum(bytes(body))
        try:
            update = decode_update(payload, spaces(150))
        except WireError:
            continue
        assert decode_update(encode(update, spaces(150)), spaces(150)).client == update.client
