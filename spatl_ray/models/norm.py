"""Normalisation of images' channels: batch, group or none, by one rule for all networks."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from spatl_ray.errors import ModelError

Norm = Literal["batch", "group", "none"]


def check_norm(kind: object) -> None:
    """Refuse a normalisation that there is not.

    Raises:
        ModelError: `kind` is not batch, group or none.
    """
    if kind not in get_args(Norm):
        raise ModelError(f"model.options.norm must be batch, group or none, got {kind!r}")


def normalisation(kind: Norm, channels: int) -> nn.Module:
    """A normalisation of `channels` channels; the group norm's groups are equal, of up to 8 channels."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        size = max(size for size in range(1, 9) if channels % size == 0)
        return nn.GroupNorm(channels // size, channels)
    return nn.Identity()


def convolution(
    inputs: int, outputs: int, kernel: int, norm: Norm, padding: int = 0
) -> list[nn.Module]:
    """A convolution and the normalisation behind it; without one it has a bias instead."""
    if norm == "none":
        return [nn.Conv2d(inputs, outputs, kernel, padding=padding)]
    layer = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)
    return [layer, normalisation(norm, outputs)]
