"""Everything of a run that must not depend on where it ran."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from client_rounds import committed
from safetensors.numpy import load_file

from spatl_ray import config
from spatl_ray.addresses import working_folder
from spatl_ray.algorithms.base import Algorithm, ClientView
from spatl_ray.algorithms.registry import ALGORITHMS
from spatl_ray.algorithms.spatl import Spatl
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import load_dataset
from spatl_ray.data.federated import federate
from spatl_ray.engine.blueprint import make_blueprint
from spatl_ray.engine.folders import state_folder
from spatl_ray.errors import StateError
from spatl_ray.experiments import experiment_from
from spatl_ray.results.schema import unmeasured
from spatl_ray.state.store import StateStore
from spatl_ray.training.local import LocalTask

OF_THE_NAME = ("run_id", "algorithm", "config_hash")
"""Columns in which a run that goes by another algorithm's name differs."""


def small(folder: Path, algorithm: Mapping[str, Any], **overrides: Any) -> Experiment:
    """Two rounds on the digits with a small residual network, five of twelve clients a round."""
    return experiment_from(
        {
            "rounds": 2,
            "clients": 12,
            "sample_ratio": 0.4,
            "partition": {"name": "dirichlet", "beta": 0.5},
            "model": {"name": "resnet20", "options": {"width": 2}},
            "training": {"batch_size": 32, "lr": 0.05, "weight_decay": 1e-4},
            "evaluation": {"every": 1, "panel": 5, "global_samples": 60, "untrained": "transfer"},
            "algorithm": algorithm,
            "results": {"folder": str(folder)},
            **overrides,
        }
    )


def everything(experiment: Experiment) -> dict[str, Any]:
    """Server arrays, all client states and all unmeasured columns of a finished run."""
    folder, run_id = working_folder(experiment.results.folder), experiment.run_id
    found: dict[str, Any] = dict(
        load_file(folder / "models" / f"run_id={run_id}" / "server.safetensors")
    )
    stores = state_stores(experiment)
    for client, last in committed(experiment).items():
        store, *_ = [store for store in stores.values() if holds(store, client, last)]
        for name, array in store.read(client, last).items():
            found[f"client {client}: {name}"] = array
    for table in ("runs", "rounds", "clients", "layers", "events"):
        path = folder / table / f"run_id={run_id}"
        if path.exists():
            frame = pd.read_parquet(path)
            columns = [c for c in unmeasured(table) if c not in OF_THE_NAME]
            for column in columns:
                found[f"{table}.{column}"] = frame[column].to_numpy()
    return found


def state_stores(experiment: Experiment) -> dict[str, StateStore]:
    """A run's states, by node if each node keeps its own: as if it were the only one."""
    data = federate(load_dataset(experiment.data, experiment.seed), experiment)
    blueprint = make_blueprint(experiment, data.dataset.spec, torch.device("cpu"))
    initial = blueprint.algorithm.start_client(blueprint.initial)
    folder = state_folder(experiment)
    folders = sorted(folder.iterdir()) if experiment.engine.state_mirror else [folder]
    return {f.name: StateStore(f, initial, values=experiment.wire.states) for f in folders}


def holds(store: StateStore, client: int, last: int) -> bool:
    """Whether a state can be read."""
    try:
        store.read(client, last)
    except StateError:
        return False
    return True


def assert_identical(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Every array equal bit for bit (NaN, which stands for null in a table, equals itself)."""
    assert first.keys() == second.keys()
    for name in first:
        one, other = first[name], second[name]
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        if one.dtype == object:
            assert list(map(str, one)) == list(map(str, other)), name
        else:
            assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes(), (
                name
            )


class Sleepy(Algorithm):
    """Mixin: clients finish in another order than they started."""

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        time.sleep(0.03 * (view.client * 5 % 7))
        return super().tasks(view)


def _sleepy(name: str) -> type[Algorithm]:
    """The built-in algorithm `name` with sleepy clients, taking a mapping of options."""
    built_in = ALGORITHMS[name]

    def init(self: Any, options: Mapping[str, Any]) -> None:
        built_in.__init__(self, config.BUILT_IN[name].model_validate(dict(options)))

    return type(f"Sleepy_{name}", (Sleepy, built_in), {"__init__": init})


SleepyFedavg = _sleepy("fedavg")
SleepyScaffold = _sleepy("scaffold")
SleepySpatl = _sleepy("spatl")
SleepyAgent = SleepySpatl
"""By the name of its options."""


class CrashOnce(Spatl):
    """SPATL in which one client kills its whole process the first time; `marker` remembers it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        options = dict(options)
        self.marker = Path(options.pop("marker"))
        super().__init__(config.Spatl.model_validate(options))

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        if view.round == 1:
            try:
                self.marker.unlink()  # by one process only
            except FileNotFoundError:
                pass
            else:
                os._exit(1)
        return super().tasks(view)
