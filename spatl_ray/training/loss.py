"""What local training minimises: cross entropy, or an own loss by dotted name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from spatl_ray import plugins
from spatl_ray.config import Training
from spatl_ray.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of (model outputs, labels): their mean over the batch, a scalar."""

LOSSES: Mapping[str, Loss] = {"cross_entropy": functional.cross_entropy}


def load_loss(name: str) -> Loss:
    """The loss that `training.loss` names.

    Raises:
        ConfigError: an own one that cannot be imported or called.
    """
    return LOSSES[name] if name in LOSSES else plugins.load(name, "training.loss")


def make_loss(training: Training, classes: int) -> Loss:
    """The loss of a run, tried on two samples before any client trains.

    Args:
        training: names the loss, and the type of its outputs.
        classes: number of labels.

    Raises:
        ConfigError: a loss that cannot be loaded, that fails, or whose result is no scalar or cannot
            be differentiated by the outputs.
    """
    loss_of = load_loss(training.loss)
    dtype = getattr(torch, training.dtype)
    # Neither equal nor 0: there, the gradient of a norm or a distance is NaN.
    outputs = torch.linspace(-1, 1, 2 * classes, dtype=dtype).reshape(2, classes).requires_grad_()
    try:
        loss = loss_of(outputs, torch.arange(2) % classes)
    except Exception as error:
        raise ConfigError(
            f"training.loss must be a function of (outputs, labels), got {training.loss!r}, "
            f"which failed on outputs of shape (2, {classes}): {type(error).__name__}: {error}"
        ) from error
    _check_result(loss, outputs, training.loss)
    return loss_of


def _check_result(loss: Any, outputs: Tensor, name: str) -> None:
    """Raise unless the loss is a scalar that depends on the outputs by a gradient."""
    if not isinstance(loss, Tensor) or loss.shape != () or not loss.is_floating_point():
        got = (
            f"{loss.dtype} of shape {tuple(loss.shape)}"
            if isinstance(loss, Tensor)
            else f"a {type(loss).__name__}"
        )
        raise ConfigError(
            f"training.loss must return a floating-point tensor of shape (), got {got} from {name!r}"
        )
    gradient = None
    if loss.requires_grad:
        (gradient,) = torch.autograd.grad(loss, outputs, allow_unused=True)
    if gradient is None:
        raise ConfigError(
            f"training.loss must be differentiable by the outputs, got one without a gradient "
            f"from {name!r}"
        )
