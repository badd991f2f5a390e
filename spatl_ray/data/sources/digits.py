"""The digits that are embedded in scikit-learn."""

from __future__ import annotations

import importlib

import numpy as np

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
    # Imported only here: scikit-learn takes seconds to import.
    bundled = importlib.import_module("sklearn.datasets").load_digits()
    images, labels = bundled.images[:, np.newaxis], bundled.target.astype(np.int64)
    test = stratified(labels, 0.2, "digits test set")
    mean, std = images[~test].mean(), images[~test].std()
    x = ((images - mean) / std).astype(np.float32)
    return Dataset("digits", x[~test], labels[~test], x[test], labels[test], classes=10)
