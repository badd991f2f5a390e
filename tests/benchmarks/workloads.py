"""What is timed: networks, clients and samples of each workload. Nothing of the simulator is used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn


@dataclass(frozen=True)
class Workload:
    """One epoch of SGD with momentum 0.9 on each client of a cohort, a round.

    Attributes:
        network: from (shape, classes).
        shape: of a sample.
        clients: in the population.
        samples: of a client.
        cohort: clients a round.
        batch: samples a step.
        lr: learning rate.
        rounds: whose median time is taken.
    """

    network: Callable[..., nn.Module]
    shape: tuple[int, ...]
    clients: int
    samples: int
    cohort: int
    batch: int
    lr: float
    rounds: int


def _network(*encoder: nn.Module, width: int, classes: int) -> nn.Module:
    parts = {"encoder": nn.Sequential(*encoder), "predictor": nn.Linear(width, classes)}
    return nn.Sequential(OrderedDict(parts))


def lenet(shape: tuple[int, ...], classes: int) -> nn.Module:
    """LeNet for 1x28x28: 44,426 parameters."""
    first = (nn.Conv2d(shape[0], 6, 5), nn.MaxPool2d(2), nn.ReLU())
    second = (nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())
    hidden = (nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
    return _network(*first, *second, *hidden, width=84, classes=classes)


def cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two convolutions without padding and 128 hidden units, for 3x32x32."""
    convolutions = (nn.Conv2d(shape[0], 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU())
    hidden = (nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 14 * 14, 128), nn.ReLU())
    return _network(*convolutions, *hidden, width=128, classes=classes)


def logistic(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Logistic regression."""
    return _network(nn.Flatten(), width=shape[0], classes=classes)


WORKLOADS = {
    "lenet": Workload(lenet, (1, 28, 28), 100, 600, 20, 32, 0.01, 8),
    "cnn": Workload(cnn, (3, 32, 32), 1000, 50, 50, 10, 0.1, 6),
    "logistic-100": Workload(logistic, (784,), 1000, 60, 100, 10, 0.01, 60),
    "logistic-10": Workload(logistic, (784,), 1000, 60, 10, 10, 0.01, 300),
    "population": Workload(logistic, (784,), 1000, 10, 100, 10, 0.01, 150),
    "stateful": Workload(lenet, (1, 28, 28), 1000, 4, 100, 4, 0.01, 200),
}


def draw(work: Workload, clients: int) -> tuple[np.ndarray, np.ndarray]:
    """Random samples of so many clients, one behind the other: what they are does not matter for speed."""
    generator = np.random.default_rng(0)
    count = clients * work.samples
    x = generator.standard_normal((count, *work.shape), dtype=np.float32)
    return x, generator.integers(0, 10, count)
