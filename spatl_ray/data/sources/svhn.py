"""Street View House Numbers, in MATLAB files."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from spatl_ray.arrays import Integers
from spatl_ray.data import pixels
from spatl_ray.data.dataset import Dataset
from spatl_ray.data.files import Files
from spatl_ray.data.options import check_bools
from spatl_ray.errors import DataError

MEAN, STD = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
"""Of each channel over all pixels of the 73,257 training images, pixels in [0, 1]."""


def svhn(root: str | None = None, extra: bool = False) -> Dataset:
    """99,289 colour images of house numbers, 32 x 32 pixels, 10 classes; files or a download.

    Args:
        root: folder of the files; None looks in the usual places, and else downloads them.
        extra: add the 531,131 easier images of extra_32x32.mat to the training part.

    Raises:
        DataError: files that are missing or damaged.

    References:
        Netzer, Wang, Coates, Bissacco, Wu, Ng, "Reading Digits in Natural Images with Unsupervised
        Feature Learning", NIPS workshop, 2011.
    """
    check_bools(extra=extra)
    train_parts = ("train", "extra") if extra else ("train",)
    names = {part: f"{part}_32x32.mat" for part in (*train_parts, "test")}
    files = Files(
        "svhn", tuple((name,) for name in names.values()), ("", "svhn", "SVHN"), "MATLAB files",
        torchvision="SVHN", calls=tuple({"split": part} for part in names),
    )  # fmt: skip
    folder = files.locate(root)
    parts = [_read(folder / names[part]) for part in train_parts]
    train_x, train_y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    test_x, test_y = _read(folder / names["test"])
    train, test = (pixels.normalised(x, MEAN, STD) for x in (train_x, test_x))
    return Dataset("svhn", train, train_y, test, test_y, classes=10)


def _read(path: Path) -> tuple[pixels.Bytes, Integers]:
    """Images, shape (n, 3, 32, 32), and labels, shape (n,); the file's label 10 means 0."""
    try:
        # Imported only here: SciPy takes long to import.
        content = importlib.import_module("scipy.io").loadmat(path, variable_names=("X", "y"))
    # A damaged file can raise nearly anything in there.
    except Exception as error:
        raise DataError(f"{path}: must be readable, got {type(error).__name__}: {error}") from error
    if not {"X", "y"} <= content.keys():
        raise DataError(f"{path}: must hold X and y, which it lacks")
    x, y = content["X"], content["y"]
    if x.dtype != np.uint8 or x.shape[:3] != (32, 32, 3) or x.ndim != 4:
        rule = "X must be bytes of shape (32, 32, 3, n)"
        raise DataError(f"{path}: {rule}, got {x.dtype} of shape {x.shape}")
    if y.dtype.kind not in "iu" or y.size != x.shape[3]:
        rule = f"y must be {x.shape[3]} integers, as X has images"
        raise DataError(f"{path}: {rule}, got {y.dtype} of shape {y.shape}")
    labels = y.ravel().astype(np.int64)
    for label in (labels.min(), labels.max()) if labels.size else ():
        if not 1 <= label <= 10:
            raise DataError(f"{path}: y must be in [1, 10], where 10 means 0, got {label}")
    return x.transpose(3, 2, 0, 1), labels % 10
