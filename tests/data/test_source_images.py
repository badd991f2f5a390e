"""images: a folder of image files, read and resized as Pillow does."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import write_image, write_image_folder

from spatl_ray.config import Data
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.errors import ConfigError, DataError

Image = importlib.import_module("PIL.Image")


def load(root: Path | None, **options: Any) -> Dataset:
    return load_dataset(Data(name="images", root=root and str(root), options=options), seed=0)


def stacked(folder: Path, mode: str = "RGB", size: tuple[int, int] | None = None) -> Any:
    """The images of a part, class by class, shape (n, height, width, channels)."""
    images = [Image.open(path).convert(mode) for path in sorted(folder.glob("*/*"))]
    resized = [
        each.resize(size[::-1], Image.Resampling.BILINEAR) if size else each for each in images
    ]
    return np.stack([np.atleast_3d(np.asarray(each)) for each in resized])


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [None, (5, 6)])
def test_pixels_are_pillows_normalised_on_the_training_part(
    tmp_path: Path, mode: str, size: tuple[int, int] | None
) -> None:
    write_image_folder(tmp_path, size=(8, 10))
    loaded = load(tmp_path, grey=mode == "L", size=size and list(size))
    train, test = (stacked(tmp_path / part, mode, size) for part in ("train", "test"))
    mean, std = train.mean(axis=(0, 1, 2)), train.std(axis=(0, 1, 2))
    assert loaded.shape == ({"RGB": 3, "L": 1}[mode], *(size or (8, 10)))
    for x, pixels in ((loaded.train_x, train), (loaded.test_x, test)):
        np.testing.assert_allclose(x.transpose(0, 2, 3, 1), (pixels - mean) / std, atol=1e-5)
    assert loaded.train_y.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert loaded.test_y.tolist() == [0, 0, 1, 1, 2, 2]
    assert loaded.classes == 3


def test_without_parts_a_share_of_each_class_is_the_test_set(tmp_path: Path) -> None:
    write_image_folder(tmp_path, classes=("x", "y"), train=10, test=0)
    loaded = load(tmp_path, test_fraction=0.3)
    assert np.bincount(loaded.train_y).tolist() == [7, 7]
    assert np.bincount(loaded.test_y).tolist() == [3, 3]
    rows = [x.tobytes() for part in (loaded.train_x, loaded.test_x) for x in part]
    assert len(set(rows)) == 20
    again = load_dataset(
        Data(name="images", root=str(tmp_path), options={"test_fraction": 0.3}), seed=7
    )
    assert again.fingerprint == loaded.fingerprint


@pytest.mark.parametrize(("suffix", "mode"), [(".jpg", "RGB"), (".bmp", "L"), (".gif", "L")])
def test_other_formats_and_grey_files_are_read(tmp_path: Path, suffix: str, mode: str) -> None:
    loaded = load(write_image_folder(tmp_path, mode=mode, suffix=suffix))
    assert loaded.train_x.shape == (18, 3, 8, 10)


def test_other_files_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    expected = load(tmp_path).fingerprint
    (tmp_path / "train/ant/notes.txt").write_text("no image")
    (tmp_path / "test/.cache").mkdir()
    assert load(tmp_path).fingerprint == expected


def test_a_constant_channel_becomes_0(tmp_path: Path) -> None:
    for name, value in (("a", 10), ("b", 200)):
        (tmp_path / name).mkdir()
        for number in range(5):
            pixels = np.dstack([np.full((4, 4), v, np.uint8) for v in (77, value, number)])
            write_image(tmp_path / name / f"{number}.png", pixels)
    loaded = load(tmp_path)
    assert np.abs(loaded.train_x[:, 0]).max() < 1e-4
    assert loaded.train_x[:, 1].std() == pytest.approx(1)


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    path = write_image(tmp_path / "test/bee/9.png", np.zeros((8, 9, 3), np.uint8))
    first = tmp_path / "train/ant/0.png"
    rule = (
        rf"{path}: must have the shape \(3, 8, 10\) of {first}, got \(3, 8, 9\); data.options.size"
    )
    with pytest.raises(DataError, match=rule):
        load(tmp_path)
    assert load(tmp_path, size=[8, 8]).shape == (3, 8, 8)


@pytest.mark.parametrize("keep", [0, 20, 150])
def test_a_truncated_image_is_named(tmp_path: Path, keep: int) -> None:
    write_image_folder(tmp_path)
    path = tmp_path / "train/cat/3.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"{path}: must be readable, got \w+: "):
        load(tmp_path)


def test_an_image_of_16_bits_is_refused(tmp_path: Path) -> None:
    write_image_folder(tmp_path, mode="L")
    path = write_image(tmp_path / "train/cat/9.png", np.full((8, 10), 40_000, np.uint16))
    with pytest.raises(DataError, match=f"{path}: must have 8 bits a channel, got mode I;16"):
        load(tmp_path)


def test_the_same_classes_must_be_in_both_parts(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "test/dog").mkdir()
    rule = f"{tmp_path}/test: must have the classes of {tmp_path}/train, got 'dog' only in"
    with pytest.raises(DataError, match=f"{rule} {tmp_path}/test"):
        load(tmp_path)
    (tmp_path / "test/dog").rename(tmp_path / "train/dog")
    with pytest.raises(DataError, match=f"{rule} {tmp_path}/train"):
        load(tmp_path)


def test_missing_folders_and_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root must be a folder of train/CLASS.*got None"):
        load(None)
    with pytest.raises(DataError, match=f"{tmp_path}/no: no such folder; data.root must be"):
        load(tmp_path / "no")
    with pytest.raises(DataError, match=f"{tmp_path}: must have a folder for each class, got none"):
        load(tmp_path)
    (tmp_path / "train/ant").mkdir(parents=True)
    with pytest.raises(DataError, match=f"{tmp_path}: must have folders train and test.*got train"):
        load(tmp_path)
    (tmp_path / "test/ant").mkdir(parents=True)
    with pytest.raises(DataError, match=f"{tmp_path}/train/ant: must hold at least one image"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"size": 8}, "size must be a list of 2 positive integers, got 8"),
        ({"size": [8]}, r"size must be a list of 2 positive integers, got \[8\]"),
        ({"grey": 1}, "grey must be true or false, got 1"),
        ({"test_fraction": 1}, r"test_fraction must be in \(0, 1\), got 1"),
    ],
)
def test_options_out_of_range_are_refused(
    tmp_path: Path, options: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ConfigError, match=rf"data\.options\.{rule}"):
        load(tmp_path, **options)
