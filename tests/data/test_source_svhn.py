"""svhn: its MATLAB files, against torchvision's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import write_mat, write_svhn
from mirrors import Mirror

from spatl_ray.config import Data
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.errors import ConfigError, DataError

MEAN, STD = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)


def load(root: Path | None = None, **options: Any) -> Dataset:
    return load_dataset(Data(name="svhn", root=root and str(root), options=options), seed=0)


def torchvisions(root: Path, split: str) -> Any:
    """torchvision's data set of small files, which have other checksums than the true ones."""
    base = pytest.importorskip("torchvision.datasets").SVHN

    class Unchecked(base):  # type: ignore[misc]
        def _check_integrity(self) -> bool:
            return True

    return Unchecked(root, split=split)


def test_images_and_labels_are_torchvisions(tmp_path: Path) -> None:
    loaded = load(write_svhn(tmp_path))
    assert loaded.shape == (3, 32, 32)
    assert sorted(set(loaded.train_y.tolist())) == list(range(10))
    for split, x, y in (
        ("train", loaded.train_x, loaded.train_y),
        ("test", loaded.test_x, loaded.test_y),
    ):
        source = torchvisions(tmp_path, split)
        expected = (source.data.transpose(0, 2, 3, 1) / 255 - MEAN) / STD
        np.testing.assert_allclose(x.transpose(0, 2, 3, 1), expected, atol=1e-6)
        assert np.array_equal(y, source.labels)


def test_the_extra_part_follows_the_training_part(tmp_path: Path) -> None:
    write_svhn(tmp_path, train=20, extra=15)
    small, large = load(tmp_path), load(tmp_path, extra=True)
    assert len(large.train_y) == 35
    assert np.array_equal(large.train_x[:20], small.train_x)
    assert np.array_equal(large.train_y[20:], torchvisions(tmp_path, "extra").labels)
    assert np.array_equal(large.test_x, small.test_x)
    with pytest.raises(ConfigError, match=r"data\.options\.extra must be true or false, got 'yes'"):
        load(tmp_path, extra="yes")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    with pytest.raises(DataError, match=f"{tmp_path}: lacks extra_32x32.mat\n") as error:
        load(tmp_path, extra=True)
    assert "SVHN(FOLDER, split='extra', download=True)" in str(error.value)


X, Y = np.zeros((32, 32, 3, 2), np.uint8), np.ones((2, 1), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "rule"),
    [
        ({"X": X}, "must hold X and y"),
        ({"X": X.astype(np.int16), "y": Y}, "X must be bytes of shape .*, got int16"),
        ({"X": X[:, :16], "y": Y}, r"X must be bytes of shape \(32, 32, 3, n\), got .*16"),
        ({"X": X, "y": Y[:1]}, r"y must be 2 integers, as X has images, got uint8 .*\(1, 1\)"),
        ({"X": X, "y": Y * 0.5}, "y must be 2 integers, as X has images, got float64"),
        ({"X": X, "y": Y * 11}, r"y must be in \[1, 10\], where 10 means 0, got 11"),
        ({"X": X, "y": Y * 0}, r"y must be in \[1, 10\], where 10 means 0, got 0"),
    ],
)
def test_arrays_that_break_a_rule_are_named(
    tmp_path: Path, arrays: dict[str, Any], rule: str
) -> None:
    write_svhn(tmp_path)
    path = write_mat(tmp_path / "test_32x32.mat", **arrays)
    with pytest.raises(DataError, match=f"{path}: {rule}"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 60, 150, 3000])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    write_svhn(tmp_path)
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"{path}: must (be readable, got \w+|hold X and y)"):
        load(tmp_path)


def test_nowhere_downloads_or_says_what_failed(
    no_other_place: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pytest.importorskip("torchvision.datasets").SVHN
    parts = {
        part: [f"{mirror.url}{part}_32x32.mat", f"{part}_32x32.mat", None]
        for part in ("train", "test")
    }
    monkeypatch.setattr(source, "split_list", parts)
    with pytest.raises(DataError, match="torchvision's download into data failed: HTTPError"):
        load()
    write_svhn(mirror.folder)
    assert load().fingerprint == load(mirror.folder).fingerprint
    assert (no_other_place / "data/test_32x32.mat").is_file()
