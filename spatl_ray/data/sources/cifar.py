"""CIFAR-10 and CIFAR-100, in the pickles of their Python version."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spatl_ray.arrays import Integers
from spatl_ray.data import pixels
from spatl_ray.data.dataset import Dataset
from spatl_ray.data.files import Files
from spatl_ray.data.options import check_choice
from spatl_ray.data.unpickle import unpickle
from spatl_ray.errors import DataError

SHAPE = (3, 32, 32)

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
"""Of each channel over all pixels of the 50,000 training images, pixels in [0, 1]."""

TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


def cifar10(root: str | None = None) -> Dataset:
    """60,000 colour images of 32 x 32 pixels, 10 classes; files or a download.

    Args:
        root: folder of `cifar-10-batches-py` or of its archive; None looks in the usual places,
            and else downloads it.

    Raises:
        DataError: files that are missing or damaged.

    References:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    archive = "cifar-10-python.tar.gz"
    files = _files("cifar10", (*TRAIN_BATCHES, "test_batch"), "cifar-10-batches-py", archive)
    folder = files.locate(root)
    train_x, train_y = _read(folder, TRAIN_BATCHES, archive, "labels", 10)
    test_x, test_y = _read(folder, ("test_batch",), archive, "labels", 10)
    train, test = (pixels.normalised(x, CIFAR10_MEAN, CIFAR10_STD) for x in (train_x, test_x))
    return Dataset("cifar10", train, train_y, test, test_y, classes=10)


def cifar100(root: str | None = None, labels: str = "fine") -> Dataset:
    """60,000 colour images of 32 x 32 pixels, 100 classes or 20 coarse ones; files or a download.

    Args:
        root: folder of `cifar-100-python` or of its archive; None looks in the usual places, and
            else downloads it.
        labels: fine (100 classes) or coarse (20).

    Raises:
        ConfigError: other labels.
        DataError: files that are missing or damaged.

    References:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    check_choice("labels", labels, ("fine", "coarse"))
    key, classes = f"{labels}_labels", 100 if labels == "fine" else 20
    archive = "cifar-100-python.tar.gz"
    folder = _files("cifar100", ("train", "test"), "cifar-100-python", archive).locate(root)
    train_x, train_y = _read(folder, ("train",), archive, key, classes)
    test_x, test_y = _read(folder, ("test",), archive, key, classes)
    train, test = (pixels.normalised(x, CIFAR100_MEAN, CIFAR100_STD) for x in (train_x, test_x))
    return Dataset("cifar100", train, train_y, test, test_y, classes)


def _files(name: str, batches: Sequence[str], folder: str, archive: str) -> Files:
    return Files(
        name,
        tuple((batch, archive) for batch in batches),
        (folder, ""),
        f"batches in a folder {folder}, or {archive}",
        torchvision=name.upper(),
    )


def _read(
    folder: Path, batches: Sequence[str], archive: str, key: str, classes: int
) -> tuple[pixels.Bytes, Integers]:
    """Images, shape (n, 3, 32, 32), and labels, shape (n,), of some batches."""
    parts = []
    for batch in batches:
        path = folder / batch
        plain = path.is_file()
        content = _content(path) if plain else _archived(folder / archive, batch)
        origin = path if plain else f"{folder / archive}: {batch}"
        parts.append(_checked(unpickle(content, origin), origin, key, classes))
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: must be readable, got {type(error).__name__}: {error}") from error


def _archived(path: Path, batch: str) -> bytes:
    """The bytes of a batch in the archive, where it lies in a folder."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and Path(member.name).name == batch:
                    stream = archive.extractfile(member)
                    return stream.read() if stream else b""
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise DataError(f"{path}: must be readable, got {type(error).__name__}: {error}") from error
    raise DataError(f"{path}: must hold {batch}, which it lacks")


def _checked(batch: Any, origin: object, key: str, classes: int) -> tuple[pixels.Bytes, Integers]:
    """Images and labels of an unpickled batch."""
    if not isinstance(batch, dict) or not {"data", key} <= batch.keys():
        raise DataError(f"{origin}: must hold data and {key}, got {_contents(batch)}")
    x, values = batch["data"], batch[key]
    size = int(np.prod(SHAPE))
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.shape[1:] != (size,):
        got = f"{x.dtype} of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise DataError(f"{origin}: data must be bytes of shape (n, {size}), got {got}")
    if not isinstance(values, list) or len(values) != len(x):
        got = f"{len(values)}" if isinstance(values, list) else type(values).__name__
        raise DataError(f"{origin}: {key} must be a list of {len(x)}, as data has rows, got {got}")
    for label in values:
        if type(label) is not int or not 0 <= label < classes:
            got = f"a {type(label).__name__}"
            if type(label) is int:  # Python writes none of more than 4300 digits.
                got = str(label) if abs(label) < 10**9 else "one of many digits"
            raise DataError(f"{origin}: {key} must be integers in [0, {classes}), got {got}")
    return x.reshape(-1, *SHAPE), np.array(values, np.int64)


def _contents(batch: Any) -> str:
    """What an unpickled batch is, with the first keys of a dict that are texts."""
    if not isinstance(batch, dict):
        return f"a {type(batch).__name__}"
    keys = [f"{key!r:.40}" for key in batch if isinstance(key, str | bytes)][:5]
    more = ", ..." if len(batch) > len(keys) else ""
    return f"a dict with the keys {', '.join(keys)}{more}" if keys else "a dict without such keys"
