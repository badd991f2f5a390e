"""Measured figures, every one a ratio within this run. `make bench`.

Efficiency is the bare loop's time over (the simulator's time x its workers) for the same client
updates: wire, exact sums and results on, evaluation off (but for the last round's, which is not
timed), start-up apart.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bare import rounds_per_second

from spatl_ray import Dataset, run
from spatl_ray.aggregation.exact import ExactSum
from spatl_ray.callbacks import Callback
from spatl_ray.config import Model
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.experiments import experiment_from
from spatl_ray.models.split import build_model
from spatl_ray.parameters import ChannelGroup, make_space
from spatl_ray.update import Update, channel_mask, keep
from spatl_ray.wire.codec import decode_update, encode

WORKLOADS = {
    "lenet": {"shape": (1, 28, 28), "clients": 20, "samples": 600, "batch": 32, "lr": 0.01},
    "mlp": {"shape": (784,), "clients": 50, "samples": 60, "batch": 10, "lr": 0.05},
}
ROUNDS = 4


class Stopwatch(Callback):
    """Notes when each round ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def round_ended(self, row: object) -> None:
        self.ends.append(time.perf_counter())


def make_dataset(name: str) -> Dataset:
    """Random samples of the workload's shape; what they are does not matter for speed."""
    work = WORKLOADS[name]
    generator = np.random.default_rng(0)
    n = work["clients"] * work["samples"]
    x = generator.normal(size=(n, *work["shape"])).astype(np.float32)
    y = generator.integers(0, 10, n)
    return Dataset(name=name, train_x=x, train_y=y, test_x=x[:10], test_y=y[:10], classes=10)


def simulated(name: str, dataset: Dataset, backend: str, algorithm: str) -> float:
    """Rounds a second of the simulator, the first and the last round left out."""
    work = WORKLOADS[name]
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        experiment = experiment_from(
            {
                "rounds": ROUNDS + 2,
                "clients": work["clients"],
                "data": {"split": {"train": 1, "validation": 0, "test": 0}},
                "partition": {"name": "iid"},
                "model": {"name": name},
                "training": {"batch_size": work["batch"], "lr": work["lr"], "momentum": 0.9},
                "algorithm": {"name": algorithm},
                "evaluation": {"every": 1000, "panel": 1},
                "engine": {"backend": backend},
                "results": {"folder": folder},
            }
        )
        run(experiment, dataset=dataset, callbacks=(watch,))
    return ROUNDS / (watch.ends[ROUNDS] - watch.ends[0])


def bare(name: str, dataset: Dataset) -> float:
    """Rounds a second of the bare loop on the same clients."""
    work = WORKLOADS[name]
    module = build_model(Model(name=name), SampleSpec(work["shape"], 10), 0, torch.float32).module
    x, y = torch.from_numpy(dataset.train_x), torch.from_numpy(dataset.train_y)
    clients = list(zip(x.split(work["samples"]), y.split(work["samples"]), strict=True))
    return rounds_per_second(module, clients, ROUNDS, work["batch"], work["lr"])


def seconds(action: Callable[[], object], repeats: int = 20) -> float:
    """The median time of an action."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def engine_figures() -> list[tuple[str, float]]:
    """Efficiency by workload, backend and algorithm."""
    workers = len(os.sched_getaffinity(0))
    figures = []
    for name in WORKLOADS:
        dataset = make_dataset(name)
        yardstick = bare(name, dataset)
        for backend, cores in (("serial", 1), ("ray", workers)):
            for algorithm in ("fedavg", "scaffold", "spatl"):
                rate = simulated(name, dataset, backend, algorithm) / (yardstick * cores)
                figures.append((f"efficiency, {name}, {algorithm}, {backend} on {cores}", rate))
    return figures


def vector_figures() -> list[tuple[str, float]]:
    """Wire and sums against memcpy, on a channel-masked update of 4 million parameters."""
    channels, row = 4096, 1024
    group = ChannelGroup("layer", channels, 0)
    space = make_space([("layer.weight", "encoder", (channels, row), 0)], (group,))
    generator = np.random.default_rng(0)
    vector = generator.normal(size=space.size).astype(np.float32)
    mask = channel_mask(generator.random(channels) < 0.5)
    spaces = {"delta": space}
    update = Update(0, 0, 1, 1, {"delta": keep(vector, mask, space, "float32")})
    payload = encode(update, spaces)
    part, total = update.parts["delta"], ExactSum(space.size)
    positions = part.mask.positions(space)
    buffer = np.empty_like(part.values)
    copy = seconds(lambda: np.copyto(buffer, part.values))
    return [
        ("encode / memcpy (seconds)", seconds(lambda: encode(update, spaces)) / copy),
        ("decode / memcpy (seconds)", seconds(lambda: decode_update(payload, spaces)) / copy),
        (
            "exact masked sum / memcpy (seconds)",
            seconds(lambda: total.add(part.values, 1e-3, positions)) / copy,
        ),
        ("payload bytes / value bytes", len(payload) / part.values.nbytes),
    ]


def main() -> None:
    """Measure, print a table, write it as JSON."""
    torch.set_num_threads(1)
    figures = [*vector_figures(), *engine_figures()]
    width = max(len(name) for name, _ in figures)
    for name, value in figures:
        print(f"{name:{width}}  {value:8.3f}")
    target = Path("results") / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(dict(figures), indent=1) + "\n")
    print(f"written to {target}")


if __name__ == "__main__":
    main()
