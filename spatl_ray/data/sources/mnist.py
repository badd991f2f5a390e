"""MNIST and its kin, in IDX files: mnist, fashion_mnist, emnist."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spatl_ray.arrays import Integers
from spatl_ray.data import idx, pixels
from spatl_ray.data.dataset import Dataset
from spatl_ray.data.files import Files
from spatl_ray.data.options import check_choice, check_count
from spatl_ray.errors import DataError

SIDE = 28
MOST_PAD = 100

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
FASHION_MEAN, FASHION_STD = 0.2860, 0.3530
"""Of the 60,000 training images of each, pixels in [0, 1]."""

FIRST_LABELS = {
    "mnist": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
    "fashion_mnist": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5],
}
"""Of the training labels. They tell the two apart, whose files have the same names."""

EMNIST_CLASSES = {
    "balanced": 47, "byclass": 62, "bymerge": 47, "letters": 26, "digits": 10, "mnist": 10,
}  # fmt: skip


def mnist(root: str | None = None, pad: int = 0) -> Dataset:
    """70,000 grey images of 28 x 28 pixels, 10 classes of digits; files or a download.

    Args:
        root: folder of the files; None looks in the usual places, and else downloads them.
        pad: black pixels around each image; 2 make it 32 x 32, as networks for CIFAR expect.

    Raises:
        ConfigError: a pad that is no such number.
        DataError: files that are missing or damaged.

    References:
        LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998.
    """
    files = Files(
        "mnist", _needs("train", "t10k"), ("", "mnist", "MNIST/raw"), "four IDX files (plain or .gz)",
        torchvision="MNIST",
    )  # fmt: skip
    return _ten_classes(files, root, pad, MNIST_MEAN, MNIST_STD)


def fashion_mnist(root: str | None = None, pad: int = 0) -> Dataset:
    """70,000 grey images of 28 x 28 pixels, 10 classes of clothes; files or a download.

    Args:
        root: folder of the files; None looks in the usual places, and else downloads them.
        pad: black pixels around each image; 2 make it 32 x 32, as networks for CIFAR expect.

    Raises:
        ConfigError: a pad that is no such number.
        DataError: files that are missing or damaged.

    References:
        Xiao, Rasul, Vollgraf, "Fashion-MNIST", arXiv 1708.07747, 2017.
    """
    files = Files(
        "fashion_mnist", _needs("train", "t10k"), ("", "fashion-mnist", "FashionMNIST/raw"),
        "four IDX files (plain or .gz)", cure="`apt install dataset-fashion-mnist`",
        torchvision="FashionMNIST", system="fashion-mnist",
    )  # fmt: skip
    return _ten_classes(files, root, pad, FASHION_MEAN, FASHION_STD)


def _ten_classes(files: Files, root: str | None, pad: int, mean: float, std: float) -> Dataset:
    check_count("pad", pad, MOST_PAD)
    folder = files.locate(root)
    (train_x, train_y), (test_x, test_y) = (
        idx.read_pair(folder, part, SIDE, classes=10) for part in ("train", "t10k")
    )
    _check_is(files.name, folder, train_y)
    train, test = (pixels.normalised(_framed(x, pad), [mean], [std]) for x in (train_x, test_x))
    return Dataset(files.name, train, train_y, test, test_y, classes=10)


def _framed(images: pixels.Bytes, pad: int) -> pixels.Bytes:
    """Images (n, height, width) as (n, 1, height + 2 pad, width + 2 pad), black around."""
    return np.pad(images[:, np.newaxis], ((0, 0), (0, 0), (pad, pad), (pad, pad)))


def _check_is(name: str, folder: Path, labels: Integers) -> None:
    for other, first in FIRST_LABELS.items():
        if other != name and labels[: len(first)].tolist() == first:
            raise DataError(f"{folder}: must hold the files of {name}, got those of {other}")


def emnist(root: str | None = None, split: str = "balanced", pad: int = 0) -> Dataset:
    """Handwritten digits and letters of 28 x 28 pixels, 10 to 62 classes; files or a download.

    The files hold the images transposed, which is undone. They are normalised by the mean and
    standard deviation of the split's training images.

    Args:
        root: folder of the files; None looks in the usual places, and else downloads them.
        split: balanced (47 classes), byclass (62), bymerge (47), letters (26), digits (10), mnist
            (10).
        pad: black pixels around each image; 2 make it 32 x 32.

    Raises:
        ConfigError: an unknown split, or a pad that is no such number.
        DataError: files that are missing or damaged.

    References:
        Cohen, Afshar, Tapson, van Schaik, "EMNIST: an extension of MNIST to handwritten letters",
        arXiv 1702.05373, 2017.
    """
    check_choice("split", split, EMNIST_CLASSES)
    check_count("pad", pad, MOST_PAD)
    parts = (f"emnist-{split}-train", f"emnist-{split}-test")
    files = Files(
        "emnist", _needs(*parts), ("", "emnist", "EMNIST/raw", "gzip"),
        f"four IDX files of split {split} (plain or .gz)",
        torchvision="EMNIST", calls=({"split": split},),
    )  # fmt: skip
    folder, classes = files.locate(root), EMNIST_CLASSES[split]
    first = 1 if split == "letters" else 0
    (train_x, train_y), (test_x, test_y) = (
        idx.read_pair(folder, part, SIDE, classes, first) for part in parts
    )
    upright = (_framed(x.swapaxes(1, 2), pad) for x in (train_x, test_x))
    train, test = pixels.standardised(*upright)
    return Dataset("emnist", train, train_y, test, test_y, classes)


def _needs(*prefixes: str) -> tuple[tuple[str, ...], ...]:
    return tuple((name, f"{name}.gz") for prefix in prefixes for name in idx.names(prefix))
