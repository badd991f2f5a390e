"""Which device a worker trains on."""

from __future__ import annotations

import torch

from spatl_ray.config import Engine
from spatl_ray.engine.capacity import needs_gpu
from spatl_ray.errors import ConfigError


def wanted_device(engine: Engine) -> str:
    """`cpu` or `cuda`, whether it is there or not: the driver may have no GPU, its workers have."""
    if engine.device == "auto":
        return "cuda" if needs_gpu(engine) else "cpu"
    return engine.device


def choose_device(engine: Engine) -> torch.device:
    """`engine.device`; `auto` takes the GPU if a share of one is reserved, else the CPU.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    wanted = wanted_device(engine)
    if wanted == "cuda" and not torch.cuda.is_available():
        field, value = _asking(engine)
        raise ConfigError(f"engine.{field} needs a GPU that torch can use, got {value} without one")
    return torch.device(wanted)


def _asking(engine: Engine) -> tuple[str, object]:
    """The field that asks for a GPU, and its value."""
    if engine.device == "cuda":
        return "device", "cuda"
    if engine.actors_per_gpu is not None:
        return "actors_per_gpu", engine.actors_per_gpu
    return "num_gpus", engine.num_gpus
