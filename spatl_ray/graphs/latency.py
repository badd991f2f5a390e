"""How long a forward pass takes, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import nn

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ModelError
from spatl_ray.graphs.trace import evaluation_mode
from spatl_ray.models.split import blank

WARM_UP = 3
"""Forward passes before the measured ones: memory is allocated and kernels are chosen."""


def measure(
    modules: Sequence[nn.Module], spec: SampleSpec, batch: int, repeats: int
) -> list[float]:
    """Median seconds of each module's forward pass in inference mode, with one thread, on the CPU.

    The modules take turns, so that what else the machine does falls on all of them. Their modes and
    torch's number of threads are left as they were.

    Args:
        modules: what is compared; any, exported ones too.
        spec: of the data.
        batch: samples in a forward pass.
        repeats: measured forward passes, behind three that are not.

    Raises:
        ModelError: a batch or repeats below 1.
    """
    for name, value in (("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise ModelError(f"{name} must be at least 1, got {value}")
    first = next(modules[0].parameters())
    sample = blank(spec, batch, first.dtype).to(first.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ExitStack() as modes:
            for module in modules:
                modes.enter_context(evaluation_mode(module))
            modes.enter_context(torch.inference_mode())
            seconds = [[_timed(m, sample) for m in modules] for _ in range(WARM_UP + repeats)]
    finally:
        torch.set_num_threads(threads)
    medians: list[float] = np.median(seconds[WARM_UP:], axis=0).tolist()
    return medians


def _timed(module: nn.Module, sample: torch.Tensor) -> float:
    """Seconds of one forward pass."""
    start = time.perf_counter()
    module(sample)
    return time.perf_counter() - start
