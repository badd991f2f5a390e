"""Runs that take a fraction of a second: the digits, a small mlp, the serial backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from torch import Tensor, nn

import analysis.load
from spatl_ray import config, run
from spatl_ray.algorithms.base import DELTA, ClientView, Proposal
from spatl_ray.algorithms.scaffold import Scaffold
from spatl_ray.arrays import Doubles, Integers
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.data.federated import federate
from spatl_ray.data.memory import with_memory
from spatl_ray.engine.backend import SerialBackend
from spatl_ray.engine.folders import state_folder
from spatl_ray.engine.summary import RunSummary
from spatl_ray.experiments import experiment_from
from spatl_ray.federation.sampler import Draw, Sampler
from spatl_ray.selection.candidate import Candidate
from spatl_ray.selection.salience import channel_norms
from spatl_ray.training.local import LocalResult
from spatl_ray.update import Part

HIDDEN = 16
SIZE = 64 * HIDDEN + HIDDEN + HIDDEN * 10 + 10
"""Parameters of the mlp on the digits."""


def small(folder: Path, algorithm: str | Mapping[str, Any] = "fedavg", **fields: Any) -> Experiment:
    """Three rounds of six clients; `fields` replace those of the experiment."""
    return experiment_from(
        {
            "rounds": 3,
            "clients": 6,
            "partition": "iid",
            "model": {"name": "mlp", "options": {"hidden": [HIDDEN]}},
            "algorithm": {"name": algorithm} if isinstance(algorithm, str) else dict(algorithm),
            "training": {"lr": 0.05},
            "engine": {"backend": "serial"},
            "results": {"folder": str(folder)},
            **fields,
        }
    )


def serial(experiment: Experiment, dataset: Dataset | None = None) -> SerialBackend:
    """The backend that `run` would make, to look into afterwards."""
    data = federate(dataset or load_dataset(experiment.data, experiment.seed), experiment)
    experiment = experiment if dataset is None else with_memory(experiment, dataset)
    return SerialBackend(experiment, data, state_folder(experiment))


def ran(
    experiment: Experiment, *, dataset: Dataset | None = None, **options: Any
) -> tuple[RunSummary, SerialBackend]:
    """Run it; the summary, and the backend as it is then."""
    backend = serial(experiment, dataset)
    return run(experiment, dataset=dataset, backend=backend, **options), backend


def table(folder: Path, name: str) -> pd.DataFrame:
    """A table as readers of the results see it."""
    return analysis.load.load(folder, name)


def server_file(experiment: Experiment) -> Path:
    """Where a finished run leaves the server's arrays."""
    name = f"run_id={experiment.run_id}"
    return Path(experiment.results.folder) / "models" / name / "server.safetensors"


def saved(experiment: Experiment) -> dict[str, np.ndarray]:
    """The server's arrays of a finished run, by array/tensor."""
    return load_file(server_file(experiment))


def same_bits(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    """Whether two mappings of arrays are equal to the bit."""
    return first.keys() == second.keys() and all(
        a.dtype == second[n].dtype and a.tobytes() == second[n].tobytes() for n, a in first.items()
    )


class SabotagedScaffold(Scaffold):
    """SCAFFOLD in which clients send something bad, or raise.

    Options: client -> "nan", "inf", "huge" or "raise"; "from" -> the first round of it.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(config.Scaffold())
        self.sabotage = options

    def propose(self, view: ClientView, results: Sequence[LocalResult]) -> Proposal:
        proposal = super().propose(view, results)
        what = self.sabotage.get(str(view.client))
        if what is None or view.round < self.sabotage.get("from", 0):
            return proposal
        if what == "raise":
            raise RuntimeError("the client broke")
        delta = proposal.parts[DELTA]
        values = delta.values.copy()
        values[0] = {"nan": np.nan, "inf": -np.inf, "huge": 1e30}[what]
        return replace(proposal, parts={**proposal.parts, DELTA: Part(delta.mask, values)})


def relative(candidate: Candidate) -> Doubles:
    """Movements over the largest: NaN for a model that did not move."""
    norms = channel_norms(candidate.space, candidate.update, 2)
    with np.errstate(invalid="ignore"):
        scores: Doubles = norms / norms.max()
    return scores


class Headless(nn.Module):
    """A network in which nothing is called a predictor."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits


def images(side: int, samples: int = 240, classes: int = 4, name: str = "noise") -> Dataset:
    """Square one-channel images of noise around a class's own brightness."""
    rng = np.random.default_rng(side)

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(n, dtype=np.int64) % classes
        x = rng.standard_normal((n, 1, side, side)) + y[:, None, None, None]
        return x.astype(np.float32), y

    (train_x, train_y), (test_x, test_y) = part(samples), part(samples // 4)
    return Dataset(name, train_x, train_y, test_x, test_y, classes)


class Repeats(Sampler):
    """Draws the same client twice."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def cohort(self, draw: Draw) -> Integers:
        return np.array([0, 0], dtype=np.int64)


class Asks(Sampler):
    """Draws client 0, after one question."""

    asks: tuple[str, Any] | None = None

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def cohort(self, draw: Draw) -> Integers:
        if self.asks is not None:
            question, clients = self.asks
            getattr(draw, question)(clients)
        return np.array([0], dtype=np.int64)


class Fails(Sampler):
    """Cannot draw round 3."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def cohort(self, draw: Draw) -> Integers:
        if draw.round == 3:
            raise RuntimeError("nobody left")
        return draw.generator.permutation(6)[: draw.size]
