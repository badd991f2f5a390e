"""What networks ask of their options and samples, in one wording; and how they begin."""

from __future__ import annotations

from torch import nn

from spatl_ray.errors import ModelError


def check_images(model: str, shape: tuple[int, ...], side: int = 1) -> None:
    """Refuse samples that are no images, or smaller ones than `side` x `side`.

    Raises:
        ModelError: names the model and the shape.
    """
    if len(shape) != 3 or min(shape[1:]) < side:
        size = f" of at least {side}x{side}" if side > 1 else ""
        raise ModelError(f"{model} needs images{size} as (channels, height, width), got {shape}")


def he_initialise(module: nn.Module) -> None:
    """Weights from N(0, 2 / inputs of a unit), biases 0 (He et al., ICCV 2015, section 2.2)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
