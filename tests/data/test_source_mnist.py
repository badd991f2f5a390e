"""mnist, fashion_mnist and emnist: how their files are found and read, and the download."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import write_array, write_emnist, write_idx
from mirrors import Mirror

from spatl_ray.config import Data
from spatl_ray.data import files, idx
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.errors import ConfigError, DataError

FASHION_FILES = [name for part in ("train", "t10k") for name in idx.names(part)]
EMNIST_CLASSES = {
    "balanced": 47, "byclass": 62, "bymerge": 47, "letters": 26, "digits": 10, "mnist": 10,
}  # fmt: skip


def load(name: str, root: Path | None = None, **options: Any) -> Dataset:
    return load_dataset(Data(name=name, root=root and str(root), options=options), seed=0)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "below", "mean", "std"),
    [
        ("fashion_mnist", "", 0.2860, 0.3530),
        ("fashion_mnist", "fashion-mnist", 0.2860, 0.3530),
        ("fashion_mnist", "FashionMNIST/raw", 0.2860, 0.3530),
        ("mnist", "", 0.1307, 0.3081),
        ("mnist", "mnist", 0.1307, 0.3081),
        ("mnist", "MNIST/raw", 0.1307, 0.3081),
    ],
)
def test_files_are_read_and_normalised(
    tmp_path: Path, name: str, below: str, mean: float, std: float, suffix: str
) -> None:
    folder = write_idx(tmp_path / below, suffix=suffix)
    loaded = load(name, tmp_path)
    pixels, labels = idx.read_pair(folder, "train", side=28, classes=10)
    assert loaded.train_x.shape == (30, 1, 28, 28)
    assert loaded.test_x.shape == (12, 1, 28, 28)
    assert loaded.name == name
    np.testing.assert_allclose(loaded.train_x[:, 0], (pixels / 255 - mean) / std, atol=1e-6)
    assert np.array_equal(loaded.train_y, labels)


@pytest.mark.skipif(
    not (files.SYSTEM_FOLDER / "fashion-mnist").is_dir(), reason="needs dataset-fashion-mnist"
)
def test_the_real_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean 0.2860 and standard deviation 0.3530 are the training images', to four digits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPATL_DATA", raising=False)
    loaded = load("fashion_mnist")
    assert loaded.train_x.shape == (60_000, 1, 28, 28)
    assert loaded.test_x.shape == (10_000, 1, 28, 28)
    assert np.bincount(loaded.train_y).tolist() == [6000] * 10
    assert np.bincount(loaded.test_y).tolist() == [1000] * 10
    assert abs(loaded.train_x.mean(dtype=np.float64)) < 5e-4
    assert abs(loaded.train_x.std(dtype=np.float64) - 1) < 5e-4
    with pytest.raises(DataError, match="must hold the files of mnist, got those of fashion_mnist"):
        load("mnist", files.SYSTEM_FOLDER / "fashion-mnist")


def test_mnist_is_not_taken_for_fashion_mnist(tmp_path: Path) -> None:
    """Their files have the same names; MNIST's training labels begin 5, 0, 4, 1, 9."""
    write_idx(tmp_path)
    first = [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    write_array(tmp_path / FASHION_FILES[1], np.array(first * 3, np.uint8))
    assert load("mnist", tmp_path).train_y[:10].tolist() == first
    with pytest.raises(DataError, match="must hold the files of fashion_mnist, got those of mnist"):
        load("fashion_mnist", tmp_path)


def test_spatl_data_is_honoured_and_comes_before_data(
    no_other_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(no_other_place / "data", seed=1)
    here = load("fashion_mnist")
    monkeypatch.setenv("SPATL_DATA", str(write_idx(tmp_path / "own", seed=2)))
    assert load("fashion_mnist").fingerprint != here.fingerprint
    assert load("fashion_mnist", no_other_place / "data").fingerprint == here.fingerprint


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
@pytest.mark.parametrize("exists", [True, False])
def test_an_explicit_root_without_files_is_refused(
    no_other_place: Path, tmp_path: Path, name: str, exists: bool
) -> None:
    write_idx(no_other_place / "data")
    root = tmp_path / "root"
    if exists:
        root.mkdir()
    with pytest.raises(DataError, match="lacks train-images" if exists else "no such folder") as e:
        load(name, root)
    assert str(no_other_place / "data") not in str(e.value)


@pytest.fixture
def idx_mirror(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder from which torchvision downloads MNIST and Fashion-MNIST."""
    datasets = pytest.importorskip("torchvision.datasets")
    for source in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(source, "mirrors", [mirror.url])
        monkeypatch.setattr(source, "resources", [(f"{name}.gz", None) for name in FASHION_FILES])
    return mirror.folder


@pytest.mark.usefixtures("idx_mirror")
def test_nowhere_and_no_download_lists_all_that_was_tried(no_other_place: Path) -> None:
    with pytest.raises(DataError, match="torchvision's download into data failed") as error:
        load("fashion_mnist")
    for place in ("data", "data/fashion-mnist", "data/FashionMNIST/raw", "system/fashion-mnist"):
        assert f"  {no_other_place / place}: " in str(error.value)
    assert "`apt install dataset-fashion-mnist`" in str(error.value)


@pytest.mark.parametrize("own", [None, "own"])
@pytest.mark.parametrize(
    ("name", "class_"), [("fashion_mnist", "FashionMNIST"), ("mnist", "MNIST")]
)
def test_nowhere_downloads_into_spatl_data_or_data(
    no_other_place: Path,
    idx_mirror: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: str | None,
    name: str,
    class_: str,
) -> None:
    if own is not None:
        monkeypatch.setenv("SPATL_DATA", own)
    write_idx(idx_mirror, suffix=".gz")
    loaded = load(name)
    assert loaded.fingerprint == load(name, idx_mirror).fingerprint
    assert (no_other_place / (own or "data") / class_ / "raw" / FASHION_FILES[0]).is_file()


@pytest.mark.parametrize(("split", "classes"), EMNIST_CLASSES.items())
def test_emnist_is_upright_with_labels_from_0(tmp_path: Path, split: str, classes: int) -> None:
    """torchvision reads the same files, but leaves images transposed and letters 1..26."""
    write_emnist(tmp_path / "EMNIST/raw", split, classes, train=2 * classes)
    loaded = load("emnist", tmp_path, split=split)
    source = pytest.importorskip("torchvision.datasets").EMNIST(tmp_path, split=split)
    assert loaded.classes == classes
    assert sorted(set(loaded.train_y.tolist())) == list(range(classes))
    assert np.array_equal(loaded.train_y, source.targets.numpy() - (split == "letters"))
    pixels = source.data.numpy().swapaxes(1, 2)
    expected = (pixels - pixels.mean()) / pixels.std()
    np.testing.assert_allclose(loaded.train_x[:, 0], expected, atol=1e-5)


def test_mnist_equals_torchvisions(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST/raw")
    source = pytest.importorskip("torchvision.datasets").MNIST(tmp_path, train=False)
    loaded = load("mnist", tmp_path)
    assert np.array_equal(loaded.test_y, source.targets.numpy())
    expected = (source.data.numpy() / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(loaded.test_x[:, 0], expected, atol=1e-6)


def test_a_letter_labelled_0_is_refused(tmp_path: Path) -> None:
    write_emnist(tmp_path, "letters", 26)
    write_array(tmp_path / "emnist-letters-test-labels-idx1-ubyte", np.zeros(12, np.uint8))
    with pytest.raises(DataError, match=r"letters-test-labels.*must be in \[1, 27\), got 0"):
        load("emnist", tmp_path, split="letters")


@pytest.mark.parametrize(("part", "sizes"), [("train", (0, 12)), ("test", (12, 0))])
def test_a_part_of_emnist_without_images_is_named(
    tmp_path: Path, part: str, sizes: tuple[int, int]
) -> None:
    write_emnist(tmp_path, "digits", 10, train=sizes[0], test=sizes[1])
    path = tmp_path / f"emnist-digits-{part}-images-idx3-ubyte"
    with pytest.raises(DataError, match=f"{path}: must hold at least one image, got none"):
        load("emnist", tmp_path, split="digits")


def test_a_truncated_file_of_emnist_is_named(tmp_path: Path) -> None:
    write_emnist(tmp_path, "digits", 10, ".gz")
    path = tmp_path / "emnist-digits-train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"{path}: must be readable"):
        load("emnist", tmp_path, split="digits")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_pad_is_black(tmp_path: Path, name: str) -> None:
    write_idx(tmp_path)
    plain, padded = load(name, tmp_path), load(name, tmp_path, pad=2)
    assert padded.train_x.shape == (30, 1, 32, 32)
    assert padded.test_x.shape == (12, 1, 32, 32)
    assert np.array_equal(padded.train_x[:, :, 2:-2, 2:-2], plain.train_x)
    frame = np.ones((32, 32), bool)
    frame[2:-2, 2:-2] = False
    mean, std = (0.1307, 0.3081) if name == "mnist" else (0.2860, 0.3530)
    np.testing.assert_allclose(padded.train_x[:, 0, frame], -mean / std, rtol=1e-6)


def test_emnist_with_a_pad_is_normalised_by_its_own_figures(tmp_path: Path) -> None:
    write_emnist(tmp_path, "digits", 10)
    padded = load("emnist", tmp_path, split="digits", pad=2)
    assert padded.shape == (1, 32, 32)
    assert padded.train_x.mean() == pytest.approx(0, abs=1e-5)
    assert padded.train_x.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("pad", [-1, 101, 1.5, True, "2"])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "emnist"])
def test_a_pad_that_is_no_number_of_pixels_is_refused(name: str, pad: object) -> None:
    with pytest.raises(ConfigError, match=r"data\.options\.pad must be an integer from 0 to 100"):
        load(name, pad=pad)


def test_an_unknown_split_is_refused_before_any_search() -> None:
    rule = r"data\.options\.split must be one of balanced, byclass, .*, got 'capitals'"
    with pytest.raises(ConfigError, match=rule):
        load("emnist", split="capitals")


def test_emnist_downloads_the_archive_of_all_splits(
    no_other_place: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pytest.importorskip("torchvision.datasets").EMNIST
    monkeypatch.setattr(source, "url", f"{mirror.url}gzip.zip")
    monkeypatch.setattr(source, "md5", None)
    with pytest.raises(DataError, match="emnist needs its four IDX files of split mnist") as error:
        load("emnist", split="mnist")
    assert "`torchvision.datasets.EMNIST(FOLDER, split='mnist', download=True)`" in str(error.value)
    write_emnist(mirror.folder / "all/gzip", "mnist", 10, ".gz")
    shutil.make_archive(str(mirror.folder / "gzip"), "zip", mirror.folder / "all")
    loaded = load("emnist", split="mnist")
    assert len(loaded.train_y) == 30
    assert (no_other_place / "data/EMNIST/raw/emnist-mnist-train-labels-idx1-ubyte").is_file()
    with gzip.open(mirror.folder / "all/gzip/emnist-mnist-train-labels-idx1-ubyte.gz") as stream:
        assert stream.read()[8:] == loaded.train_y.astype(np.uint8).tobytes()
