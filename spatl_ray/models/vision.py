"""Torchvision's classifiers by name, fitted to the data's channels and classes."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn

from spatl_ray.errors import ConfigError, ModelError
from spatl_ray.models.norm import Norm, check_norm, normalisation
from spatl_ray.models.options import check_images

PREFIX = "torchvision."
HEADS = ("fc", "classifier", "head", "heads")
"""What torchvision calls the classifying part of its networks."""

WITHOUT_AUXILIARY: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}
"""Networks that would give a second output in training, and the options that leave it out."""


def torchvision_model(name: str) -> Callable[..., nn.Module]:
    """The factory (shape, classes, **options) -> module of `torchvision.NAME`; see `_build`.

    Raises:
        ConfigError: torchvision has no classifier of that name.
    """
    models = importlib.import_module("torchvision.models")  # slow: only where it is asked for
    known = models.list_models(module=models)
    short = name.removeprefix(PREFIX)
    if short not in known:
        near = [f"{PREFIX}{other}" for other in difflib.get_close_matches(short, known)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(
            f"model.name must be {PREFIX}NAME, NAME one of torchvision's classifiers, got {name!r}{hint}"
        )
    return partial(_build, models.get_model, name)


def _build(
    get_model: Callable[..., nn.Module],
    name: str,
    /,
    shape: tuple[int, ...],
    classes: int,
    *,
    norm: Norm | None = None,
    **options: Any,
) -> nn.Module:
    """A classifier without trained weights; its initialisation is torchvision's.

    The first convolution is replaced if the data has other channels than it takes (weights as
    PyTorch draws them). The predictor is the last linear or convolutional layer of what torchvision
    calls fc, classifier, head or heads; everything before it is the encoder.

    Args:
        get_model: torchvision's builder by name.
        name: `torchvision.NAME`.
        shape: (channels, height, width).
        classes: number of outputs.
        norm: replaces every batch norm, or None for torchvision's own layers.
        options: of torchvision's builder.

    Raises:
        ModelError: samples or an option that do not fit.
    """
    check_images(name, shape)
    short = name.removeprefix(PREFIX)
    _check_options(options, WITHOUT_AUXILIARY.get(short, {}))
    options = {**WITHOUT_AUXILIARY.get(short, {}), **options}
    module = get_model(short, weights=None, num_classes=classes, **options)
    _take_channels(module, shape[0])
    if norm is not None:
        _replace_norms(module, name, norm)
    module.predictor_modules = (_last_layer(module, name),)  # type: ignore[assignment]
    return module


def _check_options(options: dict[str, Any], fixed: dict[str, Any]) -> None:
    """Refuse what this package decides: weights, number of classes, auxiliary outputs."""
    for option, reason in {
        "weights": "weights are drawn from the seed",
        "num_classes": "the data decide it",
    }.items():
        if option in options:
            raise ModelError(
                f"model.options.{option} must be left out ({reason}), got {options[option]!r}"
            )
    if "aux_logits" in fixed and options.get("aux_logits"):
        raise ModelError(
            f"model.options.aux_logits must be false (a model has one output), got {options['aux_logits']!r}"
        )


def _take_channels(module: nn.Module, channels: int) -> None:
    """Replace the first convolution if it takes another number of channels."""
    path, first = next(_of_type(module, nn.Conv2d))
    if first.in_channels == channels:
        return
    settings = ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    kept: dict[str, Any] = {key: getattr(first, key) for key in settings}
    _put(module, path, nn.Conv2d(channels, bias=first.bias is not None, **kept))


def _replace_norms(module: nn.Module, name: str, norm: Norm) -> None:
    """Another normalisation in the place of each batch norm; `batch` keeps torchvision's own."""
    check_norm(norm)
    found = list(_of_type(module, nn.BatchNorm2d))
    if not found:
        raise ModelError(
            f"model.options.norm must be left out for {name}, which has no batch norm, got {norm!r}"
        )
    for path, layer in found if norm != "batch" else []:
        _put(module, path, normalisation(norm, layer.num_features))


def _last_layer(module: nn.Module, name: str) -> str:
    """The path of the last linear or convolutional layer of the network's head."""
    layers = [path for path, _ in _of_type(module, nn.Linear, nn.Conv2d)]
    inside = [path for path in layers if path.split(".")[0] in HEADS]
    if not inside:
        heads = ", ".join(HEADS)
        raise ModelError(f"{name} must have a layer in one of {heads}, got none of them")
    return inside[-1]


def _of_type(module: nn.Module, *types: type[nn.Module]) -> Iterator[tuple[str, Any]]:
    """Paths and modules of the given types, in the module's order."""
    return ((path, layer) for path, layer in module.named_modules() if isinstance(layer, types))


def _put(module: nn.Module, path: str, layer: nn.Module) -> None:
    """Put a layer into the place of another one."""
    parent, _, child = path.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
