"""Data sets that are drawn, not read: fcube and synthetic_images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from spatl_ray import seeding
from spatl_ray.arrays import Floats, Integers
from spatl_ray.data.dataset import Dataset
from spatl_ray.data.options import check_non_negative, check_sizes
from spatl_ray.errors import ConfigError
from spatl_ray.options import check_counts

HIGHEST_FREQUENCY = 2
"""Waves along a side of the finest part of a prototype."""


def fcube(
    root: str | None = None, samples: int = 4000, test_samples: int = 1000, seed: int = 0
) -> Dataset:
    """Points of a cube with 2 classes, for feature skew by octants; drawn, needs no files.

    x is uniform in the cube [-1, 1]^3 without the planes x_i = 0; the label is 1 where x_1 > 0.

    Args:
        root: not used, there are no files to look for.
        samples: of the training part.
        test_samples: of the test part, which does not depend on `samples`.
        seed: decides what is drawn, in [0, 2**32).

    Raises:
        ConfigError: an option out of its range.

    References:
        Li, Diao, Chen, He, "Federated Learning on Non-IID Data Silos", ICDE 2022.
    """
    check_counts("data.options", ConfigError, samples=samples, test_samples=test_samples)
    check_counts("data.options", ConfigError, least=0, seed=seed)
    train, test = _points(samples, seed, "train"), _points(test_samples, seed, "test")
    train_y, test_y = ((x[:, 0] > 0).astype(np.int64) for x in (train, test))
    return Dataset("fcube", train, train_y, test, test_y, classes=2)


def _points(samples: int, seed: int, part: str) -> Floats:
    generator = seeding.generator(seed, f"fcube {part}")
    # 1 - [0, 1) is (0, 1]: with a sign of its own, no coordinate is 0.
    sizes = 1 - generator.random((samples, 3), dtype=np.float32)
    signs = generator.integers(0, 2, (samples, 3)) * 2 - 1
    return sizes * signs.astype(np.float32)


def synthetic_images(
    root: str | None = None,
    shape: Sequence[int] = (1, 16, 16),
    classes: int = 10,
    samples: int = 5000,
    test_samples: int = 1000,
    difficulty: float = 0.5,
    seed: int = 0,
) -> Dataset:
    """Noisy, shifted pictures of one smooth pattern a class; drawn, needs no files.

    x = (a S p_y + difficulty z) / sqrt(1 + difficulty^2): p_y is the prototype of class y, S a
    cyclic shift by up to a sixteenth of each side, the contrast a uniform in [0.75, 1.25], z
    standard normal for each pixel. A prototype has mean square 1. Another difficulty changes only
    the factors. Classes are as equal in size as can be.

    Args:
        root: not used, there are no files to look for.
        shape: (channels, height, width).
        classes: at least 2.
        samples: of the training part.
        test_samples: of the test part, which does not depend on `samples`.
        difficulty: standard deviation of the noise; a prototype's is 1. Of the default shape the
            nearest prototype is the right one for about 98 % of samples at 2, 84 % at 4, 50 % at 8.
        seed: decides what is drawn, in [0, 2**32).

    Raises:
        ConfigError: an option out of its range.
    """
    sizes = check_sizes("shape", shape, length=3)
    check_counts("data.options", ConfigError, samples=samples, test_samples=test_samples)
    check_counts("data.options", ConfigError, least=2, classes=classes)
    check_counts("data.options", ConfigError, least=0, seed=seed)
    check_non_negative("difficulty", difficulty)
    patterns = prototypes(sizes, classes, seed)
    train_x, train_y = _pictures(patterns, samples, difficulty, seed, "train")
    test_x, test_y = _pictures(patterns, test_samples, difficulty, seed, "test")
    return Dataset("synthetic_images", train_x, train_y, test_x, test_y, classes)


def prototypes(shape: tuple[int, ...], classes: int, seed: int) -> Floats:
    """A smooth random pattern for each class, of mean square 1; shape (classes, *shape).

    p(i, j) = sum over f of a_f cos(2 pi f.(i/h, j/w)) + b_f sin(2 pi f.(i/h, j/w)), all a_f and b_f
    standard normal, f over the whole numbers up to `HIGHEST_FREQUENCY` in both directions.
    """
    channels, height, width = shape
    span = range(-HIGHEST_FREQUENCY, HIGHEST_FREQUENCY + 1)
    frequencies = np.array([f for f in product(span, span) if any(f)], np.float64)
    down, across = frequencies.T[:, :, np.newaxis, np.newaxis]
    rows, columns = np.arange(height)[:, np.newaxis] / height, np.arange(width) / width
    angles = 2 * np.pi * (down * rows + across * columns)
    waves = np.concatenate([np.cos(angles), np.sin(angles)])
    generator = seeding.generator(seed, "synthetic images prototypes")
    weights = generator.standard_normal((classes, channels, len(waves)))
    # Not by matrix product: its order of additions depends on the number of threads.
    patterns = np.einsum("kcf,fhw->kchw", weights, waves)
    patterns /= np.sqrt((patterns**2).mean(axis=(1, 2, 3), keepdims=True))
    smooth: Floats = patterns.astype(np.float32)
    return smooth


def _pictures(
    patterns: Floats, samples: int, difficulty: float, seed: int, part: str
) -> tuple[Floats, Integers]:
    classes, _, height, width = patterns.shape
    generator = seeding.generator(seed, f"synthetic images {part}")
    labels = (generator.permutation(samples) % classes).astype(np.int64)
    rows, columns = (_shifted(side, samples, generator) for side in (height, width))
    # Indices broadcast to (samples, height, width), so that the channels come last.
    x = patterns[
        labels[:, np.newaxis, np.newaxis], :, rows[:, :, np.newaxis], columns[:, np.newaxis]
    ]
    x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    x *= generator.uniform(0.75, 1.25, (samples, 1, 1, 1)).astype(np.float32)
    noise = generator.standard_normal(x.shape, dtype=np.float32)
    noise *= np.float32(difficulty)
    x += noise
    x /= np.float32(np.sqrt(1 + difficulty**2))
    return x, labels


def _shifted(side: int, samples: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """For each sample the positions of a side after a cyclic shift, shape (samples, side)."""
    most = side // 16
    shifts = generator.integers(-most, most + 1, (samples, 1))
    return (np.arange(side) + shifts) % side
