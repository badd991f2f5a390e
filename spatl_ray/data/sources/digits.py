"""The digits that are embedded in scikit-learn."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np

from spatl_ray.arrays import Doubles, Integers
from spatl_ray.data.dataset import Dataset
from spatl_ray.data.holdout import stratified
from spatl_ray.errors import DataError


def digits(root: str | None = None) -> Dataset:
    """1,797 grey images of 8 x 8 pixels, 10 classes; embedded in scikit-learn.

    A fixed fifth of each class is the test set.

    Args:
        root: not used, there are no files to look for.

    References:
        Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test part).
    """
    images, labels = _bundled()
    test = stratified(labels, 0.2, "digits test set")
    mean, std = images[~test].mean(), images[~test].std()
    x = ((images - mean) / std).astype(np.float32)
    return Dataset("digits", x[~test], labels[~test], x[test], labels[test], classes=10)


@functools.cache
def _bundled() -> tuple[Doubles, Integers]:
    """Images (samples, 1, 8, 8) and labels: a row of text a sample, its label last."""
    # Not sklearn.datasets.load_digits: the file takes 13 ms to read, scikit-learn over a second to import.
    table = np.loadtxt(_file(), delimiter=",")
    return table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].astype(np.int64)


def _file() -> Path:
    """Where scikit-learn has the digits.

    Raises:
        DataError: it is not installed, or has them elsewhere.
    """
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.origin is not None:
        path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.exists():
            return path
    raise DataError("digits needs scikit-learn with its datasets/data/digits.csv.gz: none is there")
