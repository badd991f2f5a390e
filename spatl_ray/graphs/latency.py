"""How long a forward pass takes, measured."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ModelError
from spatl_ray.graphs.trace import evaluation_mode
from spatl_ray.models.split import blank

WARM_UP = 3
"""Forward passes before the measured ones: memory is allocated and kernels are chosen."""


def measure(module: nn.Module, spec: SampleSpec, batch: int, repeats: int) -> float:
    """Median seconds of a forward pass in inference mode, with one thread, on the CPU.

    The module's mode and torch's number of threads are left as they were. Measure what is to be
    compared on one idle machine.

    Args:
        module: any, an exported one too.
        spec: of the data.
        batch: samples in a forward pass.
        repeats: measured forward passes, behind three that are not.

    Raises:
        ModelError: a batch or repeats below 1.
    """
    for name, value in (("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise ModelError(f"{name} must be at least 1, got {value}")
    first = next(module.parameters())
    sample = blank(spec, batch, first.dtype).to(first.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with evaluation_mode(module), torch.inference_mode():
            seconds = [_timed(module, sample) for _ in range(WARM_UP + repeats)]
    finally:
        torch.set_num_threads(threads)
    return float(np.median(seconds[WARM_UP:]))


def _timed(module: nn.Module, sample: torch.Tensor) -> float:
    """Seconds of one forward pass."""
    start = time.perf_counter()
    module(sample)
    return time.perf_counter() - start
