"""Speed of the simulator against bare loops, in the same run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from bare import measured
from figure import Figure
from workloads import WORKLOADS, Workload, draw

from spatl_ray import Dataset, run
from spatl_ray.callbacks import Callback
from spatl_ray.engine.schedule import assign
from spatl_ray.experiments import experiment_from

FEDAVG = {"name": "fedavg"}
SCAFFOLD = {"name": "scaffold"}
FIXED_RATIO = {"name": "spatl", "keep": 0.5}
WORKERS = 2


class Stopwatch(Callback):
    """Notes when each round ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def round_ended(self, row: object) -> None:
        self.ends.append(time.perf_counter())


def simulated(
    name: str,
    algorithm: Mapping[str, Any],
    workers: int,
    clients: int | None = None,
    together: int = 1,
) -> float:
    """Seconds a round: the median, without the first and the last, which is evaluated.

    Args:
        name: of the workload.
        algorithm: its config.
        workers: ClientActors; 0 runs without Ray.
        clients: in the population; None takes the workload's.
        together: clients that are trained in one batched computation.
    """
    work = WORKLOADS[name]
    count = clients or work.clients
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        experiment = experiment_from(_config(work, count, algorithm, workers, together, folder))
        run(experiment, dataset=_dataset(work, count), callbacks=(watch,))
    return float(np.median(np.diff(watch.ends)[:-1]))


def _config(
    work: Workload,
    clients: int,
    algorithm: Mapping[str, Any],
    workers: int,
    together: int,
    folder: str,
) -> dict[str, Any]:
    """One epoch of plain FedAvg or another algorithm; evaluation off but for the last round's."""
    backend = {"backend": "ray", "workers": workers} if workers else {"backend": "serial"}
    return {
        "rounds": work.rounds + 2,
        "clients": clients,
        "sample_ratio": work.cohort / clients,
        "data": {"split": {"train": 1, "validation": 0, "test": 0}},
        "partition": {"name": "iid"},
        "model": {"name": f"workloads:{work.network.__name__}"},
        "training": {
            "batch_size": work.batch,
            "lr": work.lr,
            "momentum": 0.9,
            "together": together,
        },
        "algorithm": dict(algorithm),
        "evaluation": {"every": 10_000, "panel": 1},
        "engine": backend,
        "results": {"folder": folder},
    }


def _dataset(work: Workload, clients: int) -> Dataset:
    x, y = draw(work, clients)
    return Dataset(name="random", train_x=x, train_y=y, test_x=x[:10], test_y=y[:10], classes=10)


def lpt_bound(costs: Sequence[float], workers: int) -> float:
    """Maximum over mean load of longest-processing-time-first: what placement alone costs."""
    loads = [sum(costs[i] for i in group) for group in assign(costs, workers)]
    return max(loads) / (sum(loads) / workers)


def speed(repeats: int) -> Iterator[Figure]:
    """Rounds through Ray against one and two bare processes."""
    for name in ("lenet", "cnn", "logistic-100", "logistic-10"):
        yield from _figures(name, _medians(_timed(name), repeats))


def _timed(name: str) -> dict[str, Callable[[], float]]:
    """What is timed on a workload, in turn."""
    runs = {
        "one process": lambda: measured(name, 1),
        "two processes": lambda: measured(name, WORKERS),
        "fedavg": lambda: simulated(name, FEDAVG, WORKERS),
    }
    if name == "lenet":
        runs["spatl"] = lambda: simulated(name, FIXED_RATIO, WORKERS)
        runs["scaffold"] = lambda: simulated(name, SCAFFOLD, WORKERS)
        runs["one worker"] = lambda: simulated(name, FEDAVG, 1)
    if name.startswith("logistic"):
        half = WORKLOADS[name].cohort // WORKERS
        runs["together"] = lambda: simulated(name, FEDAVG, WORKERS, together=half)
    return runs


def _together(
    name: str, ratio: Callable[[str, str], float], figure: Callable[..., Figure]
) -> Iterator[Figure]:
    """With half of the cohort at once on each worker: the option for small linear models."""
    size = WORKLOADS[name].cohort // WORKERS
    efficiency = ratio("one process", "together") / WORKERS
    least, most = (0.8, None) if name == "logistic-100" else (None, 1.7)
    yield figure(f"FedAvg, {size} at once, efficiency", efficiency, least)
    over = ratio("together", "one process")
    yield figure(f"FedAvg, {size} at once, a round over the bare loop's", over, most=most)


def _medians(runs: Mapping[str, Callable[[], float]], repeats: int) -> Callable[[str, str], float]:
    """Times of all in turn, as medians of ratios within a repetition."""
    times = pd.DataFrame([{kind: run() for kind, run in runs.items()} for _ in range(repeats)])
    return lambda above, below: float((times[above] / times[below]).median())


def _figures(name: str, ratio: Callable[[str, str], float]) -> Iterator[Figure]:
    """The figures of one workload."""
    work = WORKLOADS[name]
    efficiency = ratio("one process", "fedavg") / WORKERS
    ceiling = ratio("two processes", "fedavg")

    def figure(
        text: str, value: float, least: float | None = None, most: float | None = None
    ) -> Figure:
        return Figure("speed", f"{name}: {text}", value, least, most)

    yield figure("FedAvg, efficiency", efficiency)
    yield figure(
        "FedAvg, of two bare processes' speed", ceiling, {"lenet": 0.95, "cnn": 0.97}.get(name)
    )
    yield figure("FedAvg, a round over the bare loop's", ratio("fedavg", "one process"))
    if name.startswith("logistic"):
        yield from _together(name, ratio, figure)
    bare_scaling = ratio("one process", "two processes")
    yield figure("two bare processes over one, speed", bare_scaling)
    yield figure("LPT bound, maximum over mean load", lpt_bound([1.0] * work.cohort, WORKERS))
    if name == "lenet":
        yield figure("SPATL, of two bare processes' speed", ratio("two processes", "spatl"), 0.85)
        yield figure(
            "SCAFFOLD, of two bare processes' speed", ratio("two processes", "scaffold"), 0.9
        )
        scaling = ratio("one worker", "fedavg")
        yield figure("FedAvg, two workers over one, speed", scaling)
        yield figure("scaling, of the bare loop's", scaling / bare_scaling, 0.97)
