"""Normalisation by channel, and the test set of data that come without one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spatl_ray.data import pixels
from spatl_ray.data.holdout import stratified
from spatl_ray.errors import ConfigError

images = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5), elements=st.integers(0, 255)
)


@given(x=images)
def test_moments_are_numpys(x: pixels.Bytes) -> None:
    mean, std = pixels.moments(x)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3)), rtol=1e-12)
    constant = x.min(axis=(0, 2, 3)) == x.max(axis=(0, 2, 3))
    np.testing.assert_allclose(std, np.where(constant, 1, x.std(axis=(0, 2, 3))), rtol=1e-12)


@given(x=images, block=st.integers(1, 60))
def test_blocks_do_not_change_moments(x: pixels.Bytes, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "BLOCK", block)
        in_blocks = pixels.moments(x)
    np.testing.assert_allclose(in_blocks, pixels.moments(x), rtol=1e-12)


@given(x=images)
def test_standardised_training_images_have_mean_0_and_deviation_1(x: pixels.Bytes) -> None:
    train, test = pixels.standardised(x, x[:1])
    assert train.dtype == np.float32
    assert train.flags.c_contiguous
    assert np.abs(train.mean(axis=(0, 2, 3), dtype=np.float64)).max() < 1e-4
    constant = x.min(axis=(0, 2, 3)) == x.max(axis=(0, 2, 3))
    np.testing.assert_allclose(train.std(axis=(0, 2, 3)), ~constant, atol=1e-4)
    assert np.array_equal(test, train[:1])


def test_given_constants_are_used_channel_by_channel() -> None:
    x = np.full((2, 3, 4, 4), 51, np.uint8)
    out = pixels.normalised(x, (0.2, 0.1, 0.0), (0.1, 0.2, 0.5))
    np.testing.assert_allclose(out[0, :, 0, 0], [0, 0.5, 0.4], atol=1e-6)


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), fraction=st.floats(0.01, 0.99))
def test_the_held_out_share_of_each_class(labels: list[int], fraction: float) -> None:
    y = np.array(labels)
    counts = np.bincount(y)
    expected = np.minimum(np.floor(fraction * counts + 0.5), np.maximum(counts - 1, 0))
    if not expected.sum():
        with pytest.raises(ConfigError, match=r"data\.options\.test_fraction must leave a test"):
            stratified(y, fraction, "some test set")
        return
    held = stratified(y, fraction, "some test set")
    assert np.bincount(y[held], minlength=len(counts)).tolist() == expected.tolist()
    assert np.array_equal(held, stratified(y, fraction, "some test set"))


def test_another_stream_holds_out_others() -> None:
    y = np.zeros(100, np.int64)
    assert not np.array_equal(stratified(y, 0.5, "a"), stratified(y, 0.5, "b"))
