"""A bare PyTorch FedAvg loop: one process, one thread, no simulator. The yardstick.

It imports nothing of spatl_ray: flat parameters, resident tensors, plain SGD with momentum, and the
weighted mean of the clients' parameters at the end of each round.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Client = tuple[Tensor, Tensor]


def flatten(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Make the module's parameters and gradients views of two flat vectors."""
    parameters = list(module.parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    gradient = torch.zeros_like(flat)
    offset = 0
    for p in parameters:
        span = slice(offset, offset + p.numel())
        p.data, p.grad = flat[span].view(p.shape), gradient[span].view(p.shape)
        offset = span.stop
    return flat, gradient


def train(
    module: nn.Module,
    flat: Tensor,
    gradient: Tensor,
    client: Client,
    batch: int,
    lr: float,
    momentum: float,
    generator: np.random.Generator,
) -> None:
    """One epoch of SGD with momentum on one client."""
    x, y = client
    velocity = torch.zeros_like(flat)
    order = torch.from_numpy(generator.permutation(len(y)))
    for start in range(0, len(y), batch):
        rows = order[start : start + batch]
        gradient.zero_()
        functional.cross_entropy(module(x[rows]), y[rows]).backward()
        with torch.no_grad():
            velocity.mul_(momentum).add_(gradient)
            flat.sub_(velocity, alpha=lr)


def rounds_per_second(
    module: nn.Module, clients: Sequence[Client], rounds: int, batch: int, lr: float
) -> float:
    """Rounds of FedAvg over all clients a second; the first round is not timed."""
    torch.set_num_threads(1)
    module.train()
    flat, gradient = flatten(module)
    generator = np.random.default_rng(0)
    total = sum(len(y) for _, y in clients)
    start = 0.0
    for round_ in range(rounds + 1):
        if round_ == 1:
            start = time.perf_counter()
        common, mean = flat.clone(), torch.zeros_like(flat)
        for client in clients:
            flat.copy_(common)
            train(module, flat, gradient, client, batch, lr, 0.9, generator)
            mean.add_(flat, alpha=len(client[1]) / total)
        flat.copy_(mean)
    return rounds / (time.perf_counter() - start)
