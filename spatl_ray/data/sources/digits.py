"""The digits that are embedded in scikit-learn."""

from __future__ import annotations

import functools
import importlib

import numpy as np

from spatl_ray.arrays import Doubles, Integers
from spatl_ray.data.dataset import Dataset
from spatl_ray.data.holdout import stratified


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
    """Images (samples, 1, 8, 8) and labels, as they come: text that takes 25 ms to parse."""
    # Imported only here: scikit-learn takes seconds to import.
    bundled = importlib.import_module("sklearn.datasets").load_digits()
    return bundled.images[:, np.newaxis], bundled.target.astype(np.int64)
