"""VGG for small images (Simonyan, Zisserman, ICLR 2015, configurations A, B and D)."""

from __future__ import annotations

from torch import Tensor, nn

from spatl_ray.errors import ModelError
from spatl_ray.models.norm import Norm, check_norm, convolution
from spatl_ray.models.options import check_images, he_initialise
from spatl_ray.options import check_counts

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
"""Convolutions before each pooling, by depth."""

UNITS = (1, 2, 4, 8, 8)
"""Their channels, in units of the first one's."""


class VGG(nn.Module):
    """3x3 convolutions of 64, 128, 256, 512 and 512 channels in five stages, then 512-512-classes.

    For 3x32x32 and ten classes without normalisation, VGG-11 has 9,750,922 parameters, 9,220,480 of
    them in its eight convolutions, VGG-13 9,935,434 and VGG-16 15,245,130. The convolutions are the
    encoder; the three linear layers are the predictor. The head is that for small images (512 units
    instead of 4096). Weights begin after He et al.

    Each stage ends with 2x2 max pooling, which is left out where a side is 1: 32x32 is pooled five
    times, 28x28 and 16x16 four times. What larger images leave is flattened.

    Args:
        shape: (channels, height, width).
        classes: number of outputs.
        depth: 11, 13 or 16.
        width: channels of the first convolution; all hidden layers scale with it.
        norm: batch, group or no normalisation behind each convolution.

    Raises:
        ModelError: samples or an option that do not fit.
    """

    def __init__(
        self, shape: tuple[int, ...], classes: int, depth: int, width: int = 64, norm: Norm = "none"
    ) -> None:
        super().__init__()
        check_images(f"vgg{depth}", shape)
        check_counts("model.options", ModelError, width=width)
        check_norm(norm)
        inputs, *sides = shape
        layers: list[nn.Module] = []
        for count, units in zip(CONVOLUTIONS[depth], UNITS, strict=True):
            for _ in range(count):
                outputs = width * units
                layers += [*convolution(inputs, outputs, 3, norm, padding=1), nn.ReLU()]
                inputs = outputs
            if min(sides) > 1:
                layers.append(nn.MaxPool2d(2))
                sides = [side // 2 for side in sides]
        self.encoder = nn.Sequential(*layers)
        self.predictor = nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs * sides[0] * sides[1], inputs), nn.ReLU(),
            nn.Linear(inputs, inputs), nn.ReLU(),
            nn.Linear(inputs, classes),
        )  # fmt: skip
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        logits: Tensor = self.predictor(self.encoder(x))
        return logits


def vgg11(shape: tuple[int, ...], classes: int, width: int = 64, norm: Norm = "none") -> VGG:
    """VGG-11; see `VGG`."""
    return VGG(shape, classes, 11, width, norm)


def vgg13(shape: tuple[int, ...], classes: int, width: int = 64, norm: Norm = "none") -> VGG:
    """VGG-13; see `VGG`."""
    return VGG(shape, classes, 13, width, norm)


def vgg16(shape: tuple[int, ...], classes: int, width: int = 64, norm: Norm = "none") -> VGG:
    """VGG-16; see `VGG`."""
    return VGG(shape, classes, 16, width, norm)
