"""Messages: the round trip, the exact cost, golden bytes, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spatl_ray.arrays import Bits
from spatl_ray.errors import WireError
from spatl_ray.parameters import ChannelGroup, Space, make_space
from spatl_ray.update import (
    VALUE_TYPES,
    WHOLE,
    Broadcast,
    Mask,
    MaskKind,
    Part,
    Update,
    channel_mask,
)
from spatl_ray.wire.codec import Last, decode_broadcast, decode_update, encode
from spatl_ray.wire.masks import fits

Spaces = Mapping[str, Space]

UPDATE_OVERHEAD = 31
"""Magic 4, version 1, kind 1, round 4, client 8, steps 4, samples 4, parts 1, checksum 4."""
BROADCAST_OVERHEAD = 15
"""The same without client, steps and samples."""
PART_OVERHEAD = 11
"""Name length 1, value type 1, mask coding 1, mask bytes 4, number of values 4."""


def same_parts(first: Update | Broadcast, second: Update | Broadcast) -> bool:
    """Equality of names, their order, masks, and of the values' memory: NaN payloads count."""
    return list(first.parts) == list(second.parts) and all(
        a.mask == b.mask
        and a.values.dtype == b.values.dtype
        and a.values.tobytes() == b.values.tobytes()
        for a, b in zip(first.parts.values(), second.parts.values(), strict=True)
    )


@st.composite
def space_groups(draw: st.DrawFn) -> tuple[ChannelGroup, ...]:
    """Channel groups, one after the other."""
    sizes = draw(st.lists(st.integers(1, 9), max_size=3))
    starts = itertools.accumulate(sizes, initial=0)
    return tuple(
        ChannelGroup(f"layer{i}", n, o) for i, (n, o) in enumerate(zip(sizes, starts, strict=False))
    )


@st.composite
def spaces_over(draw: st.DrawFn, groups: tuple[ChannelGroup, ...]) -> Space:
    """Tensors under those groups, some under none."""
    tensors = []
    for i in range(draw(st.integers(0, 4))):
        group = draw(st.integers(-1, len(groups) - 1))
        rows = groups[group].channels if group >= 0 else draw(st.integers(1, 40))
        tensors.append((f"t{i}", "encoder", (rows, draw(st.integers(1, 5))), group))
    return make_space(tensors, groups)


def random_bits(draw: st.DrawFn, size: int) -> Bits:
    """Bits of any density."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.random(size) < draw(st.sampled_from([0.0, 0.02, 0.2, 0.5, 1.0]))


def draw_mask(draw: st.DrawFn, space: Space, known: list[Mask]) -> Mask:
    """A mask of any kind, often one that was seen before."""
    fitting = [mask for mask in known if fits(mask, space)]
    again: bool = draw(st.booleans())
    if fitting and again:
        return draw(st.sampled_from(fitting))
    kind: MaskKind = draw(st.sampled_from(MaskKind))
    if kind is MaskKind.WHOLE:
        return WHOLE
    size = space.channels if kind is MaskKind.CHANNEL else space.size
    return Mask(kind, random_bits(draw, size))


def draw_part(draw: st.DrawFn, space: Space, known: list[Mask]) -> Part:
    """Arbitrary bit patterns as values: NaNs with payloads, infinities, zeros of both signs."""
    mask = draw_mask(draw, space, known)
    dtype = VALUE_TYPES[draw(st.sampled_from(list(VALUE_TYPES)))]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = np.frombuffer(rng.bytes(mask.count(space) * dtype.itemsize), dtype=dtype)
    return Part(mask, values)


@st.composite
def messages(draw: st.DrawFn) -> tuple[Spaces, Last, dict[str, Part]]:
    """Spaces over the same groups, what is remembered of them, and at least one part."""
    groups = draw(space_groups())
    names = draw(
        st.lists(st.text("abz_.", min_size=1, max_size=9), min_size=1, max_size=5, unique=True)
    )
    spaces = {name: draw(spaces_over(groups)) for name in names}
    last = {name: draw_mask(draw, spaces[name], []) for name in names if draw(st.booleans())}
    parts: dict[str, Part] = {}
    for name in names:
        known = [part.mask for part in parts.values()]
        known += [last[name]] if name in last else []
        parts[name] = draw_part(draw, spaces[name], known)
    return spaces, last, parts


numbers = st.tuples(*[st.integers(0, 2**n - 1) for n in (32, 64, 32, 32)])


@given(messages(), numbers)
@settings(deadline=None, max_examples=60)
def test_updates_come_back_bit_for_bit(
    message: tuple[Spaces, Last, dict[str, Part]], fields: tuple[int, int, int, int]
) -> None:
    spaces, last, parts = message
    update = Update(*fields, parts)
    for memory in (None, last):
        back = decode_update(encode(update, spaces, memory), spaces, memory)
        assert (back.round, back.client, back.steps, back.samples) == fields
        assert same_parts(back, update)


@given(messages(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_broadcasts_come_back_bit_for_bit(
    message: tuple[Spaces, Last, dict[str, Part]], round_: int
) -> None:
    spaces, last, parts = message
    broadcast = Broadcast(round_, parts)
    back = decode_broadcast(memoryview(encode(broadcast, spaces, last)), spaces, last)
    assert back.round == round_
    assert same_parts(back, broadcast)


@given(messages())
@settings(deadline=None, max_examples=40)
def test_what_is_remembered_never_costs_more(message: tuple[Spaces, Last, dict[str, Part]]) -> None:
    spaces, last, parts = message
    update = Update(0, 0, 0, 0, parts)
    assert len(encode(update, spaces, last)) <= len(encode(update, spaces))


@pytest.mark.parametrize("value_type", list(VALUE_TYPES))
def test_special_values_keep_their_bits(value_type: str) -> None:
    dtype = VALUE_TYPES[value_type]
    unsigned = np.dtype(f"u{dtype.itemsize}")
    ones = np.iinfo(unsigned).max  # a negative quiet NaN whose payload is all ones
    patterns = np.array([0, ones, ones >> 1, 1, 1 << (8 * dtype.itemsize - 1)], dtype=unsigned)
    values = patterns.view(dtype)
    assert np.isnan(values[1])
    spaces = {"delta": make_space([("w", "encoder", (5,), -1)])}
    back = decode_update(encode(Update(0, 0, 0, 0, {"delta": Part(WHOLE, values)}), spaces), spaces)
    assert np.array_equal(back.parts["delta"].values.view(unsigned), patterns)


def grouped(channels: int) -> Space:
    """One layer of two weights a channel, and its bias."""
    group = ChannelGroup("layer", channels, 0)
    return make_space(
        [("layer.weight", "encoder", (channels, 2), 0), ("layer.bias", "encoder", (channels,), 0)],
        (group,),
    )


def sent(mask: Mask, space: Space) -> Part:
    """Zeros at the kept positions."""
    return Part(mask, np.zeros(mask.count(space), dtype=np.float32))


@given(hnp.arrays(np.bool_, st.integers(1, 300)))
@settings(deadline=None, max_examples=40)
def test_a_channel_mask_costs_one_bit_a_channel(bits: Bits) -> None:
    space = grouped(len(bits))
    mask = channel_mask(bits)
    payload = encode(Update(0, 0, 0, 0, {"delta": sent(mask, space)}), {"delta": space})
    values = 4 * mask.count(space)
    overhead = UPDATE_OVERHEAD + PART_OVERHEAD + len("delta")
    assert len(payload) == overhead + math.ceil(len(bits) / 8) + values


def test_the_fixed_overhead_is_exact() -> None:
    spaces = {"delta": grouped(3), "c": grouped(3)}
    parts = {name: sent(WHOLE, space) for name, space in spaces.items()}
    size = 2 * PART_OVERHEAD + len("delta" + "c") + 2 * 4 * 9
    assert len(encode(Update(0, 0, 0, 0, parts), spaces)) == UPDATE_OVERHEAD + size
    assert len(encode(Broadcast(0, parts), spaces)) == BROADCAST_OVERHEAD + size


def test_a_mask_that_is_known_costs_nothing_or_one_byte() -> None:
    spaces = {"delta": grouped(800), "buffers": grouped(800)}
    mask = channel_mask(np.arange(800) % 3 == 0)
    parts = {name: sent(mask, space) for name, space in spaces.items()}
    update = Update(0, 0, 0, 0, parts)
    bare = UPDATE_OVERHEAD + 2 * PART_OVERHEAD + 12 + 2 * 4 * mask.count(spaces["delta"])
    assert len(encode(update, spaces)) == bare + 100 + 1
    assert len(encode(update, spaces, {"delta": mask})) == bare + 1
    assert len(encode(update, spaces, {"delta": mask, "buffers": mask})) == bare


def test_a_message_without_parts_is_not_sent() -> None:
    assert encode(Update(1, 2, 3, 4, {}), {}) == b""
    assert encode(Broadcast(1, {}), {}) == b""


def test_no_bytes_are_no_message() -> None:
    with pytest.raises(WireError, match="6 more bytes"):
        decode_update(b"", {})
    with pytest.raises(WireError, match="6 more bytes"):
        decode_broadcast(b"", {})


@given(st.integers(1, 16))
@settings(deadline=None, max_examples=16)
def test_values_are_aligned_and_read_only_wherever_they_begin(shift: int) -> None:
    spaces = {"n" * shift: make_space([("w", "encoder", (3,), -1)])}
    payload = encode(Broadcast(0, {"n" * shift: Part(WHOLE, np.arange(3.0))}), spaces)
    values = decode_broadcast(payload, spaces).parts["n" * shift].values
    assert values.tolist() == [0.0, 1.0, 2.0]
    assert values.flags.aligned
    assert not values.flags.writeable


def test_strided_values_are_sent_in_order() -> None:
    spaces = {"d": make_space([("w", "encoder", (4,), -1)])}
    part = Part(WHOLE, np.arange(8, dtype=np.float64)[::2])
    back = decode_update(encode(Update(0, 0, 0, 0, {"d": part}), spaces), spaces)
    assert back.parts["d"].values.tolist() == [0.0, 2.0, 4.0, 6.0]


def test_every_value_type_has_a_number() -> None:
    spaces = {"d": make_space([("w", "encoder", (1,), -1)])}
    parts = [Part(WHOLE, np.zeros(1, dtype=dtype)) for dtype in VALUE_TYPES.values()]
    payloads = [encode(Broadcast(0, {"d": part}), spaces) for part in parts]
    numbers_at = [payload[BROADCAST_OVERHEAD - 4 + 2] for payload in payloads]
    assert numbers_at == [0, 1, 2, 3]
