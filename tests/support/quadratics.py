"""Clients with quadratic losses, for which federated algorithms have closed forms.

Client i holds one sample (a_i, b_i) and the loss f_i(x) = (a_i / 2) ||x - b_i||^2, so that K local
steps of rate lr map x to b_i + (1 - lr a_i)^K (x - b_i). Half of x is encoder, half predictor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spatl_ray import config
from spatl_ray.algorithms.base import Algorithm, ClientView
from spatl_ray.algorithms.registry import ALGORITHMS
from spatl_ray.data.datasets import Dataset
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.backend import SerialBackend
from spatl_ray.engine.cohort import Cohorts
from spatl_ray.engine.messages import NEVER, RoundOutcome
from spatl_ray.training.local import LocalTask
from spatl_ray.training.schedule import learning_rate


class Quadratic(nn.Module):
    """sqrt(a) (x - b) for samples (a, b); x is encoder then predictor, both linear layers of ones."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        half = classes // 2
        self.encoder = nn.Linear(1, half, bias=False)
        self.predictor = nn.Linear(1, classes - half, bias=False)
        for layer in (self.encoder, self.predictor):
            nn.init.zeros_(layer.weight)

    def forward(self, sample: Tensor) -> Tensor:
        one = torch.ones(len(sample), 1, dtype=sample.dtype)
        x = torch.cat([self.encoder(one), self.predictor(one)], dim=1)
        return sample[:, :1].sqrt() * (x - sample[:, 1:])


def half_squares(output: Tensor, labels: Tensor) -> Tensor:
    """(1/2) ||output||^2, mean over the batch."""
    return output.square().sum(dim=1).mean() / 2


class OnQuadratics(Algorithm):
    """Mixin: an algorithm that trains the quadratic loss."""

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        return tuple(replace(task, loss=half_squares) for task in super().tasks(view))


def _on_quadratics(name: str) -> type[Algorithm]:
    """The built-in algorithm `name`, trained on quadratics, taking a mapping of options."""
    built_in = ALGORITHMS[name]

    def init(self: Any, options: Mapping[str, Any]) -> None:
        built_in.__init__(self, config.BUILT_IN[name].model_validate(options))

    return type(f"Quadratic_{name}", (OnQuadratics, built_in), {"__init__": init})


QuadraticFedAvg = _on_quadratics("fedavg")
QuadraticFedProx = _on_quadratics("fedprox")
QuadraticFedNova = _on_quadratics("fednova")
QuadraticScaffold = _on_quadratics("scaffold")
QuadraticSpatl = _on_quadratics("spatl")
NAMES = {
    "fedavg": "QuadraticFedAvg",
    "fedprox": "QuadraticFedProx",
    "fednova": "QuadraticFedNova",
    "scaffold": "QuadraticScaffold",
    "spatl": "QuadraticSpatl",
}


def problem(
    a: Sequence[float], b: np.ndarray, repeats: Sequence[int] | None = None
) -> FederatedData:
    """Clients with curvatures a and optima b (shape (clients, classes)), each sample repeated.

    `repeats` are the clients' sample counts n_i; the loss of a client does not depend on it.
    """
    counts = list(repeats or [1] * len(a))
    rows = np.concatenate([np.asarray(a, dtype=np.float32)[:, None], b.astype(np.float32)], axis=1)
    x = np.repeat(rows, counts, axis=0)
    y = np.zeros(len(x), dtype=np.int64)
    dataset = Dataset(
        name="quadratics", train_x=x, train_y=y, test_x=x[:2], test_y=y[:2], classes=b.shape[1]
    )
    ends = np.cumsum(counts)
    starts = ends - counts
    bounds = np.stack([starts, ends, ends, ends], axis=1)
    return FederatedData(dataset, np.arange(len(x)), bounds)


def experiment(algorithm: str, clients: int, rounds: int, **overrides: Any) -> config.Experiment:
    """A float64 experiment on quadratics; `overrides` are sections or fields of the config."""
    name = algorithm if ":" in algorithm else f"quadratics:{NAMES[algorithm]}"
    options = overrides.pop("options", {})
    training = {"steps": 5, "batch_size": 1000, "lr": 0.1, "momentum": 0.0, "dtype": "float64"}
    training.update(overrides.pop("training", {}))
    return config.Experiment.model_validate(
        {
            "clients": clients,
            "rounds": rounds,
            "objective": "uniform",
            "algorithm": {"name": name, "options": options},
            "model": {"name": "quadratics:Quadratic"},
            "training": training,
            "engine": {"backend": "serial"},
            **overrides,
        }
    )


def play(
    experiment: config.Experiment, data: FederatedData, states: Any, groups: int = 1
) -> tuple[SerialBackend, list[RoundOutcome]]:
    """Run all rounds on the serial backend, without evaluation or results."""
    backend = SerialBackend(experiment, data, states, groups)
    backend.start()
    outcomes = []
    cohorts = Cohorts(experiment, data.sizes("train"), None, 0.0, backend)
    for round_ in range(experiment.rounds):
        lr = learning_rate(experiment.training, round_, experiment.rounds)
        asked = cohorts.draw(round_, lr, ())
        outcomes.append(backend.train(asked.plan, lambda count: None))
        cohorts.ended(round_, outcomes[-1].clients)
    return backend, outcomes


def counted(outcome: RoundOutcome, round_: int) -> dict[int, int]:
    """The clients whose update counted in the round, and the round."""
    return {r.client: round_ for r in outcome.clients if r.status in ("accepted", "clipped")}


def final_states(
    backend: SerialBackend, outcomes: Sequence[RoundOutcome]
) -> list[Mapping[str, np.ndarray]]:
    """Every client's last committed state, from round 0 on."""
    clients = backend.worker.experiment.clients
    last = dict.fromkeys(range(clients), NEVER)
    for round_, outcome in enumerate(outcomes):
        last.update(counted(outcome, round_))
    return [backend.worker.store.read(client, last[client]) for client in range(clients)]
