"""A test set for data that come without one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spatl_ray import seeding
from spatl_ray.arrays import Integers
from spatl_ray.data.options import refuse


def stratified(labels: Integers, fraction: float, stream: str) -> npt.NDArray[np.bool_]:
    """Which samples are the test set: a share of each class, the same in every experiment.

    A class of n samples gives floor(fraction n + 1/2), but leaves one for training.

    Args:
        labels: in [0, classes), shape (n,), n at least 1.
        fraction: share of each class, in (0, 1).
        stream: keys what is drawn; no seed does, so that all experiments share the test set.

    Raises:
        ConfigError: no class is large enough to give a sample.
    """
    keys = seeding.generator(0, stream).random(len(labels))
    order = np.lexsort((keys, labels))
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = np.minimum(np.floor(fraction * counts + 0.5).astype(np.int64), counts - 1)
    chosen = np.zeros(len(labels), np.bool_)
    chosen[order] = rank < share[labels[order]]
    if not chosen.any():
        rule = f"leave a test sample of {len(labels)} samples, the largest class has {counts.max()}"
        raise refuse("test_fraction", rule, fraction)
    return chosen
