"""Masks, and the parts of messages: what is kept comes back, the rest is 0."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.errors import WireError
from spatl_ray.parameters import ChannelGroup, make_space
from spatl_ray.update import (
    VALUE_TYPES,
    WHOLE,
    Mask,
    MaskKind,
    channel_mask,
    element_mask,
    keep,
)

SPACE = make_space(
    [("w", "encoder", (3, 2), 0), ("b", "encoder", (3,), 0), ("free", "encoder", (2,), -1)],
    (ChannelGroup("layer", 3, 0),),
)
BIT = st.booleans()
masks = st.one_of(
    st.just(WHOLE),
    st.lists(BIT, min_size=3, max_size=3).map(channel_mask),
    st.lists(BIT, min_size=11, max_size=11).map(element_mask),
)
vectors = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(size=11).astype(np.float32)
)


def kept_by_hand(mask: Mask) -> np.ndarray:
    """Rows of w, then of b, then what no group covers."""
    if mask.kind is MaskKind.WHOLE:
        return np.ones(11, dtype=bool)
    bits = mask.bits.tolist()
    if mask.kind is MaskKind.CHANNEL:
        bits = [bits[0], bits[0], bits[1], bits[1], bits[2], bits[2], *bits, True, True]
    return np.array(bits)


@given(masks)
def test_positions_and_count(mask: Mask) -> None:
    expected = kept_by_hand(mask)
    positions = mask.positions(SPACE)
    assert (positions is None) == (mask.kind is MaskKind.WHOLE)
    assert positions is None or np.array_equal(positions, expected)
    assert mask.count(SPACE) == expected.sum()


@given(masks, masks)
def test_masks_are_equal_if_they_say_the_same_in_the_same_way(a: Mask, b: Mask) -> None:
    same = a.kind == b.kind and (a.bits is None or a.bits.tolist() == b.bits.tolist())
    assert (a == b) == same
    assert a == Mask(a.kind, None if a.bits is None else a.bits.copy())


def test_a_mask_is_no_other_thing_and_no_key() -> None:
    assert WHOLE != "whole"
    with pytest.raises(TypeError, match="unhashable"):
        hash(WHOLE)


@given(vectors, masks, st.sampled_from(sorted(VALUE_TYPES)))
def test_what_is_kept_comes_back_and_the_rest_is_0(
    vector: np.ndarray, mask: Mask, value_type: str
) -> None:
    part = keep(vector, mask, SPACE, value_type)
    assert part.values.dtype == VALUE_TYPES[value_type]
    assert part.values.shape == (mask.count(SPACE),)
    expected = np.where(kept_by_hand(mask), vector.astype(VALUE_TYPES[value_type]), 0)
    assert np.array_equal(part.dense(SPACE, np.float64), expected.astype(np.float64))


@given(vectors, masks)
def test_keeping_again_changes_nothing(vector: np.ndarray, mask: Mask) -> None:
    once = keep(vector, mask, SPACE, "bfloat16")
    again = keep(once.dense(SPACE, np.float32), mask, SPACE, "bfloat16")
    assert once.values.tobytes() == again.values.tobytes()


@pytest.mark.parametrize(
    ("value_type", "value", "expected"),
    # Halfway between two neighbours, the even significand wins.
    [
        ("bfloat16", 1 + 2**-8, 1.0),
        ("bfloat16", 1 + 3 * 2**-8, 1 + 2**-6),
        ("float16", 1 + 2**-11, 1.0),
    ],
)
def test_casts_round_to_nearest_even(value_type: str, value: float, expected: float) -> None:
    part = keep(np.full(11, value, dtype=np.float32), WHOLE, SPACE, value_type)
    assert part.dense(SPACE, np.float64).tolist() == [expected] * 11


def test_what_a_type_cannot_hold_is_infinite_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part = keep(np.full(11, 1e6, dtype=np.float32), WHOLE, SPACE, "float16")
    assert np.isinf(part.dense(SPACE, np.float32)).all()


@pytest.mark.parametrize("shape", [(10,), (12,), (11, 1), ()])
def test_a_vector_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WireError, match=r"shape \(11,\) is needed, got"):
        keep(np.zeros(shape), WHOLE, SPACE, "float32")
