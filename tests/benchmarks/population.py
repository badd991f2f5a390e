"""Seconds a round as the population grows at a fixed cohort, and memory of all processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bare import measured
from figure import Figure
from memory import Memory
from speed import FEDAVG, SCAFFOLD, WORKERS, simulated

CLIENTS = (1_000, 10_000, 100_000)
FEW, MANY = CLIENTS[0], CLIENTS[-1]
AT_ONCE = 50
"""Clients in one batched computation: half of the cohort."""

MEBIBYTE = 2.0**20


def population(repeats: int) -> Iterator[Figure]:
    """Stateless logistic regression, then LeNet with a control variate for each client."""
    for clients in CLIENTS:
        ratios = [
            simulated("population", FEDAVG, WORKERS, clients, together=AT_ONCE)
            / measured("population", 1)
            for _ in range(repeats)
        ]
        text = f"FedAvg, {clients:,} clients, {AT_ONCE} at once, a round over the bare loop's"
        yield Figure("population", text, float(np.median(ratios)), most=2.2)
    yield from _stateful(repeats)


def _stateful(repeats: int) -> Iterator[Figure]:
    ratios = []
    for _ in range(repeats):
        few = simulated("stateful", SCAFFOLD, WORKERS, FEW)
        with Memory() as memory:
            many = simulated("stateful", SCAFFOLD, WORKERS, MANY)
        ratios.append(many / few)
    text = f"SCAFFOLD, a round at {MANY:,} clients over {FEW:,}"
    yield Figure("population", text, float(np.median(ratios)), most=1.1)
    yield Figure("population", "memory of all processes, GiB", memory.peak / 2**30, most=4.0)
    for kind, slope in memory.slopes().items():
        yield Figure("population", f"growth of {kind}, MiB a round", slope * many / MEBIBYTE)
