"""Bare PyTorch loops of FedAvg, without a simulator: the yardstick.

    python tests/benchmarks/bare.py lenet 2

prints seconds a round of two processes with one all-reduce a round: the ceiling of what two cores can do.
It imports nothing of spatl_ray: flat parameters, resident tensors, plain SGD with momentum.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.functional import cross_entropy
from workloads import WORKLOADS, draw


def flatten(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Make the module's parameters and gradients views of two flat vectors."""
    parameters = list(module.parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    gradient, start = torch.zeros_like(flat), 0
    for p in parameters:
        span = slice(start, start := start + p.numel())
        p.data, p.grad = flat[span].view(p.shape), gradient[span].view(p.shape)
    return flat, gradient


def seconds_a_round(name: str, rank: int, processes: int) -> float:
    """The median over rounds; this process trains its share of each cohort."""
    torch.set_num_threads(1)
    work = WORKLOADS[name]
    x, y = (torch.from_numpy(array) for array in draw(work, work.clients))
    module, times = work.network(work.shape, 10), []
    flat, gradient = flatten(module)
    cohorts, orders = np.random.default_rng(0), np.random.default_rng(rank)
    for _ in range(work.rounds + 1):
        start = time.perf_counter()
        cohort = cohorts.choice(work.clients, work.cohort, replace=False)
        common, mean = flat.clone(), torch.zeros_like(flat)
        for client in cohort[rank::processes].tolist():
            flat.copy_(common)
            velocity = torch.zeros_like(flat)
            order = torch.from_numpy(orders.permutation(work.samples)) + client * work.samples
            for rows in order.split(work.batch):
                gradient.zero_()
                cross_entropy(module(x[rows]), y[rows]).backward()
                with torch.no_grad():
                    flat.sub_(velocity.mul_(0.9).add_(gradient), alpha=work.lr)
            mean.add_(flat, alpha=1 / work.cohort)
        if processes > 1:
            distributed.all_reduce(mean)
        flat.copy_(mean)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def _process(rank: int, name: str, processes: int, found: Tensor, meeting: str) -> None:
    distributed.init_process_group("gloo", meeting, rank=rank, world_size=processes)
    found[rank] = seconds_a_round(name, rank, processes)
    distributed.destroy_process_group()


def measured(name: str, processes: int) -> float:
    """Seconds a round of fresh processes with one thread each."""
    found = torch.zeros(processes, dtype=torch.float64).share_memory_()
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        multiprocessing.spawn(_process, (name, processes, found, meeting), processes)
    return float(found.max())


if __name__ == "__main__":
    print(measured(sys.argv[1], int(sys.argv[2])))
