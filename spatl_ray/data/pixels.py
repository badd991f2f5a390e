"""Images to network input: float32, normalised channel by channel, without large copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Doubles, Floats

Bytes = npt.NDArray[np.uint8]

BLOCK = 2**22
"""Values that are held in float64 at a time: 32 MB."""


def normalised(
    pixels: Bytes, mean: Sequence[float] | Doubles, std: Sequence[float] | Doubles
) -> Floats:
    """(pixel / 255 - mean) / std in float32, channel by channel.

    Args:
        pixels: shape (n, channels, height, width).
        mean: of each channel, pixels in [0, 1].
        std: standard deviation of each channel, pixels in [0, 1].
    """
    x = pixels.astype(np.float32, order="C")
    x /= np.float32(255)
    shift_and_scale(x, mean, std)
    return x


def standardised(train: Bytes, test: Bytes) -> tuple[Floats, Floats]:
    """Both parts in float32, with mean 0 and standard deviation 1 of each training channel."""
    mean, std = moments(train)
    return normalised(train, mean / 255, std / 255), normalised(test, mean / 255, std / 255)


def shift_and_scale(
    x: Floats, mean: Sequence[float] | Doubles, std: Sequence[float] | Doubles
) -> None:
    """x <- (x - mean) / std in place, for each channel of x, shape (n, channels, height, width)."""
    # In float32: the training images of MNIST in float64 would take 376 MB.
    x -= np.asarray(mean, np.float32)[:, np.newaxis, np.newaxis]
    x /= np.asarray(std, np.float32)[:, np.newaxis, np.newaxis]


def moments(x: Bytes | Floats) -> tuple[Doubles, Doubles]:
    """Mean and standard deviation of each channel; 1 for the deviation of a constant channel.

    Args:
        x: shape (n, channels, height, width), n at least 1.
    """
    axes, size = (0, 2, 3), len(x) * x.shape[2] * x.shape[3]
    step = max(1, BLOCK // x[0].size)
    blocks = [slice(start, start + step) for start in range(0, len(x), step)]
    mean = np.sum([x[b].sum(axis=axes, dtype=np.float64) for b in blocks], axis=0) / size
    centre = mean[:, np.newaxis, np.newaxis]
    squares = np.sum([((x[b] - centre) ** 2).sum(axis=axes) for b in blocks], axis=0)
    std = np.sqrt(squares / size)
    constant = x.min(axis=axes) == x.max(axis=axes)
    return mean, np.where(constant, 1.0, std)
