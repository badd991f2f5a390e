"""Random changes of training images: crop, mirror, cutout; each sample its own, batch by batch.

Every number is drawn by NumPy and turned into pixels there, so that a batch is the same to the bit
on any device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spatl_ray.config import Augment
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ConfigError

Pixels = npt.NDArray[np.int64]


class Changes(NamedTuple):
    """What is done to each of n samples; each field has shape (n,).

    Attributes:
        top, left: where the crop starts, in pixels from the image's corner; -crop to crop.
        mirrored: 1 for a sample that is mirrored, else 0.
        row, column: centre of the cutout.
    """

    top: Pixels
    left: Pixels
    mirrored: Pixels
    row: Pixels
    column: Pixels


def check_augment(augment: Augment | None, spec: SampleSpec) -> None:
    """Refuse changes that samples of this kind cannot have.

    Args:
        augment: what a run asks for.
        spec: of its data.

    Raises:
        ConfigError: samples that are no images, a crop or a cutout that is too large for them.
    """
    if augment is None or augment == Augment():
        return
    if spec.vocabulary is not None:
        raise ConfigError(f"training.augment must be null for token ids, got {augment}")
    if len(spec.shape) != 3:
        raise ConfigError(
            "training.augment must be null for samples that are no images of shape (channels, "
            f"height, width), got {augment} for samples of shape {spec.shape}"
        )
    side = min(spec.shape[1:])
    faults = []
    if augment.crop >= side:
        # Reflection about the edge pixel has only side - 1 pixels to show.
        faults.append(
            f"training.augment.crop must be less than the images' side of {side} pixels, "
            f"got {augment.crop}"
        )
    if augment.cutout > side:
        faults.append(
            f"training.augment.cutout must be at most the images' side of {side} pixels, "
            f"got {augment.cutout}"
        )
    if faults:
        raise ConfigError(faults)


def draw_changes(
    augment: Augment, n: int, height: int, width: int, generator: np.random.Generator
) -> Changes:
    """The changes of n samples: five uniform numbers a sample, whichever of them are used.

    So what is drawn for one change does not depend on whether another one is on.
    """
    top, left, mirrored, row, column = generator.random((5, n))
    shifts = 2 * augment.crop + 1
    return Changes(
        (top * shifts).astype(np.int64) - augment.crop,
        (left * shifts).astype(np.int64) - augment.crop,
        (mirrored < 0.5).astype(np.int64) if augment.flip else np.zeros(n, dtype=np.int64),
        (row * height).astype(np.int64),
        (column * width).astype(np.int64),
    )


def augmented(x: Tensor, augment: Augment | None, generator: np.random.Generator) -> Tensor:
    """The samples with random changes, `x` itself if none is asked for.

    A sample is padded by reflection and cropped to its size again, mirrored left to right with
    probability 1/2, and a square of it, clipped at the edges, is set to 0: the mean of normalised
    images.

    Args:
        x: images, shape (n, channels, height, width).
        augment: which changes; `check_augment` has accepted them.
        generator: the only source of randomness.

    References:
        DeVries, Taylor, "Improved regularization of convolutional neural networks with cutout",
        arXiv 1708.04552, 2017.
    """
    if augment is None or augment == Augment():
        return x
    n, _, height, width = x.shape
    drawn = draw_changes(augment, n, height, width, generator)
    top, left, mirrored, row, column = torch.from_numpy(np.stack(drawn)).to(x.device)
    if augment.crop or augment.flip:
        x = _moved(x, top, left, mirrored)
    if augment.cutout:
        x = _cut(x, row, column, augment.cutout)
    return x


def _moved(x: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """Each sample's crop, mirrored or not, taken from the image as if it were reflected."""
    n, channels, height, width = x.shape
    rows = _reflected(top[:, None] + torch.arange(height, device=x.device), height)
    columns = _reflected(left[:, None] + torch.arange(width, device=x.device), width)
    columns = torch.where(mirrored[:, None].bool(), columns.flip(1), columns)
    pixels = rows[:, :, None] * width + columns[:, None, :]
    index = pixels.reshape(n, 1, -1).expand(n, channels, -1)
    return x.flatten(2).gather(2, index).view(x.shape)


def _reflected(position: Tensor, side: int) -> Tensor:
    """The pixel seen at a position in (-side, 2 side - 1): mirrored about the first and last one."""
    last = side - 1
    return last - (last - position.abs()).abs()


def _cut(x: Tensor, row: Tensor, column: Tensor, side: int) -> Tensor:
    """A square around each sample's centre, as far as it lies inside the image, set to 0."""
    rows = _within(row, side, x.shape[2])
    columns = _within(column, side, x.shape[3])
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _within(centre: Tensor, length: int, side: int) -> Tensor:
    """Which of `side` pixels lie in an interval of `length` around each centre, shape (n, side)."""
    first = centre[:, None] - length // 2
    pixel = torch.arange(side, device=centre.device)
    return (pixel >= first) & (pixel < first + length)
