"""Residual networks for small images (He et al., CVPR 2016, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from spatl_ray.errors import ModelError
from spatl_ray.models.norm import Norm, check_norm, normalisation
from spatl_ray.models.options import check_images, he_initialise
from spatl_ray.options import check_counts


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a parameter-free shortcut (He et al., option A).

    Where the block halves the image, the shortcut takes every second pixel and pads the new
    channels with zeros, half before and half behind.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
        self.norm1 = normalisation(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bias)
        self.norm2 = normalisation(norm, outputs)
        self.stride = stride
        self.padding = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Features of shape (batch, outputs, height / stride, width / stride)."""
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        if self.padding or self.stride != 1:
            before = self.padding // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, before, self.padding - before))
        return functional.relu(y + x)


class ResNet(nn.Module):
    """ResNet of depth 6n + 2: a 3x3 convolution, three stages of n blocks, pooling, one linear layer.

    For 3x32x32 and ten classes ResNet-20 has 269,722 parameters, ResNet-32 464,154 and ResNet-56
    853,018. The linear layer is the predictor. Weights begin after He et al.

    Args:
        shape: (channels, height, width).
        classes: number of outputs.
        depth: 20, 32, 44, 56, ...
        width: channels of the first stage; the stages have width, 2 width and 4 width.
        norm: batch, group or no normalisation.

    Raises:
        ModelError: samples or an option that do not fit.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        depth: int = 20,
        width: int = 16,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        check_images("resnet", shape)
        check_counts("model.options", ModelError, depth=depth, width=width)
        check_norm(norm)
        if depth < 8 or (depth - 2) % 6:
            raise ModelError(f"model.options.depth must be 6n + 2 with n >= 1, got {depth}")
        stem = nn.Conv2d(shape[0], width, 3, 1, 1, bias=norm == "none")
        blocks: list[nn.Module] = [stem, normalisation(norm, width), nn.ReLU()]
        inputs = width
        for stage in range(3):
            for block in range((depth - 2) // 6):
                outputs, stride = width << stage, 2 if stage and not block else 1
                blocks.append(BasicBlock(inputs, outputs, stride, norm))
                inputs = outputs
        self.encoder = nn.Sequential(*blocks)
        self.predictor = nn.Linear(inputs, classes)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        logits: Tensor = self.predictor(self.encoder(x).mean(dim=(2, 3)))
        return logits


def resnet20(shape: tuple[int, ...], classes: int, width: int = 16, norm: Norm = "batch") -> ResNet:
    """ResNet-20; see `ResNet`."""
    return ResNet(shape, classes, 20, width, norm)


def resnet32(shape: tuple[int, ...], classes: int, width: int = 16, norm: Norm = "batch") -> ResNet:
    """ResNet-32; see `ResNet`."""
    return ResNet(shape, classes, 32, width, norm)


def resnet56(shape: tuple[int, ...], classes: int, width: int = 16, norm: Norm = "batch") -> ResNet:
    """ResNet-56; see `ResNet`."""
    return ResNet(shape, classes, 56, width, norm)
