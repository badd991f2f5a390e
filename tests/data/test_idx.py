"""IDX files: the round trip, and every kind of damage."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from data_files import write_array, write_idx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spatl_ray.data import idx
from spatl_ray.errors import DataError

FIXTURE_KEEPS_NO_STATE = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FIXTURE_KEEPS_NO_STATE
@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)),
    suffix=st.sampled_from(["", ".gz"]),
)
def test_reads_what_was_written(tmp_path: Path, array: idx.Bytes, suffix: str) -> None:
    path = write_array(tmp_path / f"array{suffix}", array)
    read = idx.read_idx(path, array.ndim)
    assert read.shape == array.shape
    assert np.array_equal(read, array)


@FIXTURE_KEEPS_NO_STATE
@given(cut=st.integers(0, 27))
def test_every_truncation_is_an_error(tmp_path: Path, cut: int) -> None:
    """The file has 16 bytes of header and 2 * 2 * 3 = 12 bytes of content: 28."""
    path = write_array(tmp_path / "images", np.zeros((2, 2, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"images: (magic|header|must hold)"):
        idx.read_idx(path, 3)


@FIXTURE_KEEPS_NO_STATE
@given(cut=st.integers(1, 30))
def test_every_truncation_of_a_compressed_file_is_an_error(tmp_path: Path, cut: int) -> None:
    path = write_array(tmp_path / "images.gz", np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"images\.gz: must be readable"):
        idx.read_idx(path, 3)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "magic must be 0x00000801, got 0x$"),
        (b"\0\0\x08\x03" + bytes(4), "magic must be 0x00000801, got 0x00000803"),
        (b"\0\0\x0d\x01" + bytes(4), "magic must be 0x00000801, got 0x00000d01"),
        (b"\0\0\x08\x01\0\0", "header must have 8 bytes, got 6"),
        (b"\0\0\x08\x01\0\0\0\x02a", "must hold 2 bytes after its header.*got 1"),
        (b"\0\0\x08\x01\0\0\0\x02abc", "must hold 2 bytes after its header.*got 3"),
        (b"\0\0\x08\x01\xff\xff\xff\xffab", "must hold 4294967295 bytes"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, rule: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: {rule}"):
        idx.read_idx(path, 1)


def test_the_product_of_the_dimensions_does_not_wrap(tmp_path: Path) -> None:
    """2^31 * 2^31 * 4 is 0 modulo 2^64: in 64-bit arithmetic no content would look complete."""
    path = tmp_path / "images"
    path.write_bytes(b"\0\0\x08\x03" + b"\x80\0\0\0" * 2 + b"\0\0\0\x04")
    with pytest.raises(DataError, match=f"must hold {2**64} bytes"):
        idx.read_idx(path, 3)


def test_a_corrupt_or_missing_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    with pytest.raises(DataError, match="FileNotFoundError"):
        idx.read_idx(path, 1)
    path.write_bytes(b"no gzip")
    with pytest.raises(DataError, match="BadGzipFile"):
        idx.read_idx(path, 1)
    damaged = bytearray(gzip.compress(bytes(range(200))))
    damaged[30] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="must be readable"):
        idx.read_idx(path, 1)


def test_images_of_another_size_are_an_error(tmp_path: Path) -> None:
    write_idx(tmp_path)
    write_array(tmp_path / "train-images-idx3-ubyte", np.zeros((30, 28, 27), np.uint8))
    with pytest.raises(DataError, match="images must be 28x28 pixels, got 28x27"):
        idx.read_pair(tmp_path, "train", side=28, classes=10)


def test_counts_that_differ_are_an_error(tmp_path: Path) -> None:
    write_idx(tmp_path)
    write_array(tmp_path / "train-labels-idx1-ubyte", np.zeros(29, np.uint8))
    with pytest.raises(DataError, match=r"train-labels.*as many labels as.*30, got 29"):
        idx.read_pair(tmp_path, "train", side=28, classes=10)


def test_a_label_out_of_range_is_an_error(tmp_path: Path) -> None:
    write_idx(tmp_path)
    write_array(tmp_path / "t10k-labels-idx1-ubyte", np.full(12, 10, np.uint8))
    with pytest.raises(DataError, match=r"t10k-labels.*labels must be in \[0, 10\), got 10"):
        idx.read_pair(tmp_path, "t10k", side=28, classes=10)


def test_labels_may_begin_with_another_number(tmp_path: Path) -> None:
    write_idx(tmp_path, classes=3, first=1)
    labels = idx.read_pair(tmp_path, "train", side=28, classes=3, first=1)[1]
    assert sorted(set(labels.tolist())) == [0, 1, 2]
    with pytest.raises(DataError, match=r"train-labels.*labels must be in \[2, 5\), got 1"):
        idx.read_pair(tmp_path, "train", side=28, classes=3, first=2)
