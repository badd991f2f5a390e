"""How many actors a GPU is best shared by: what is measured, and what follows from it."""

from __future__ import annotations

import math
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spatl_ray.aggregation.masked import Weights
from spatl_ray.config import Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.aggregator import Aggregator
from spatl_ray.engine.device import choose_device
from spatl_ray.engine.messages import EvaluationTask, GroupTask, Member, PanelMember
from spatl_ray.engine.worker import Worker
from spatl_ray.training.schedule import learning_rate

MARGIN = 0.1
"""The part of a GPU's memory that stays free."""

GAIN = 0.1
"""By how much more actors must be faster, all together, to be worth their memory."""

STEPS = 10
"""Of a client while it is measured, at most."""


@dataclass(frozen=True)
class Trial:
    """So many actors at once on one GPU.

    Attributes:
        actors: how many.
        rate: samples that all of them trained in a second.
        memory: bytes of the GPU that each of them takes at most.
    """

    actors: int
    rate: float
    memory: float

    def fits(self, memory: float) -> bool:
        """Whether so many leave the margin of a GPU with so many bytes."""
        return self.actors * self.memory <= (1 - MARGIN) * memory


def explored(measure: Callable[[int], Trial | None], memory: float, most: int) -> list[Trial]:
    """Trials of 1, 2, 4, ... actors, as long as more of them fit and pay.

    Args:
        measure: tries so many at once; None if they failed.
        memory: of the GPU, in bytes.
        most: actors that the GPU's share of the CPUs allows.

    Returns:
        What was tried; the last one may not be worth it.
    """
    tried: list[Trial] = []
    actors = 1
    while (trial := measure(actors)) is not None:
        tried.append(trial)
        room = math.floor((1 - MARGIN) * memory / max(trial.memory, 1.0))
        following = min(2 * actors, most, room)
        if following <= actors or _best(tried, memory) != trial:
            break
        actors = following
    return tried


def best(tried: Sequence[Trial], memory: float) -> int:
    """The most actors that fit and are each time faster than fewer by `GAIN`; one, if nothing fits.

    Args:
        tried: by number of actors.
        memory: of the GPU, in bytes.
    """
    return _best(tried, memory).actors


def _best(tried: Sequence[Trial], memory: float) -> Trial:
    found = tried[0]
    for trial in tried[1:]:
        if not (trial.fits(memory) and trial.rate >= (1 + GAIN) * found.rate):
            break
        found = trial
    return found


def told(tried: Sequence[Trial], memory: float) -> str:
    """The choice with what it rests on, in a line."""
    rates = ", ".join(f"{t.actors}: {t.rate:.3g}" for t in tried)
    most = max(trial.memory for trial in tried)
    return (
        f"{best(tried, memory)} actors a GPU; samples a second with so many at once: {rates}; at most "
        f"{most / 1e9:.3g} of {memory / 1e9:.3g} GB each"
    )


class Probe:
    """A worker that trains clients of the experiment for nothing but their time and memory.

    It is a whole `Worker`: samples on its device, selection, coding and states (in a folder of its own)
    are measured along. The clients are those of median size, their steps at most `STEPS`.

    Args:
        experiment: the config.
        data: the federated data set.
    """

    def __init__(self, experiment: Experiment, data: FederatedData) -> None:
        sizes = data.sizes("train")
        middle = np.argsort(sizes, kind="stable")[len(sizes) // 2 :]
        clients = middle[: experiment.training.together].tolist()
        experiment = shortened(experiment, int(sizes[middle[0]]))
        self._device = choose_device(experiment.engine)
        self._states = Path(tempfile.mkdtemp(prefix="spatl_ray-probe-"))
        self._worker = Worker(experiment, data, self._states, self._device, "probe")
        self._broadcast = Aggregator(experiment, data.dataset.spec).broadcast(0, clients)
        lr = learning_rate(experiment.training, 0, experiment.rounds)
        weights = Weights(1 / len(clients), 1 / len(clients))
        batch = tuple(Member(client, weights) for client in clients)
        self._task = GroupTask(round=0, group=0, lr=lr, batches=(batch,))
        panel = tuple(PanelMember(client) for client in clients)
        self._worker.evaluate(EvaluationTask(0, lr, panel, None), self._broadcast)
        self._trained()

    def rate(self, seconds: float) -> float:
        """Samples a second, over as many clients as take so long, but at least one batch of them."""
        start = time.perf_counter()
        trained = self._trained()
        while (passed := time.perf_counter() - start) < seconds:
            trained += self._trained()
        return trained / passed

    def _trained(self) -> int:
        """Train the clients once; samples that were processed."""
        _, reports = self._worker.train(self._task, self._broadcast)
        return sum(report.processed for report in reports)

    def memory(self, beside: int) -> float:
        """Bytes of the GPU that this process takes at most; on a CPU, those that were resident.

        On a GPU it is a share of all that is in use, with what drivers and strangers hold: torch keeps
        what it once took.

        Args:
            beside: how many probes are on the GPU, with this one.
        """
        if self._device.type == "cuda":
            free, whole = torch.cuda.mem_get_info(self._device)
            return float(whole - free) / beside
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024

    def whole(self) -> float:
        """Bytes of the GPU; on a CPU, which has none, 0."""
        if self._device.type != "cuda":
            return 0.0
        return float(torch.cuda.mem_get_info(self._device)[1])

    def close(self) -> None:
        """Remove the states."""
        shutil.rmtree(self._states, ignore_errors=True)


def shortened(experiment: Experiment, samples: int) -> Experiment:
    """The experiment with at most `STEPS` steps a client.

    Args:
        experiment: the config.
        samples: of the client.
    """
    training = experiment.training
    epoch = math.ceil(samples / training.batch_size)
    if (training.steps or (training.epochs or 1) * epoch) <= STEPS:
        return experiment
    shorter = training.model_copy(update={"steps": STEPS, "epochs": None})
    return experiment.model_copy(update={"training": shorter})
