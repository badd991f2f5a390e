"""Which device a worker trains on."""

from __future__ import annotations

import torch

from spatl_ray.config import Engine
from spatl_ray.errors import ConfigError


def wanted_device(engine: Engine) -> str:
    """`cpu` or `cuda`, whether it is there or not: the driver may have no GPU, its workers have."""
    if engine.device == "auto":
        return "cuda" if engine.num_gpus else "cpu"
    return engine.device


def choose_device(engine: Engine) -> torch.device:
    """`engine.device`; `auto` takes the GPU if a share of one is reserved, else the CPU.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    wanted = wanted_device(engine)
    if wanted == "cuda" and not torch.cuda.is_available():
        field, value = (
            ("device", "cuda") if engine.device == "cuda" else ("num_gpus", engine.num_gpus)
        )
        raise ConfigError(f"engine.{field} needs a GPU that torch can use, got {value} without one")
    return torch.device(wanted)
