"""The forward pass of training, with the options that give up the reference's bits for speed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from spatl_ray.config import Training
from spatl_ray.errors import ConfigError
from spatl_ray.models.flat import FlatModel

COMPILERS = ("g++", "clang++", "c++")
"""What torch.compile calls on a CPU, unless the environment variable CXX names another."""


def check_compile(training: Training, device: str) -> None:
    """Refuse `compile` where nothing can.

    Args:
        training: its options.
        device: `cpu` or `cuda`; only the former needs a compiler of the machine.

    Raises:
        ConfigError: there is no C++ compiler.
    """
    if not training.compile or device != "cpu":
        return
    if not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
        raise ConfigError(
            "training.compile must be false without a C++ compiler "
            f"({', '.join(COMPILERS)}, or CXX), got true"
        )


class Forward:
    """Outputs of a flat model, computed as the options say, in the parameters' dtype.

    Args:
        model: the model.
        training: `precision`, `channels_last`, `compile`.
    """

    def __init__(self, model: FlatModel, training: Training) -> None:
        self._module = model.module
        self._called = torch.compile(model.module) if training.compile else model.module
        self._dtype = model.parameters.dtype
        self._device = model.parameters.device.type
        self._bfloat16 = training.precision == "bf16"
        self._channels_last = training.channels_last

    def __call__(self, x: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """The outputs.

        Args:
            x: samples, shape (n, *shape).
            parameters: by name, instead of the model's own.
        """
        if self._channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        if not self._bfloat16:
            return self._outputs(x, parameters)
        with torch.autocast(self._device, torch.bfloat16):
            rounded = self._outputs(x, parameters)
        return rounded.to(self._dtype)

    def _outputs(self, x: Tensor, parameters: Mapping[str, Tensor] | None) -> Tensor:
        if parameters is None:
            output: Tensor = self._called(x)
        else:
            output = functional_call(self._module, dict(parameters), (x,))
        return output
