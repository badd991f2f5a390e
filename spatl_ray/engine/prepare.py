"""What has to be there before the first round: data, model, algorithm, and a backend for them."""

from __future__ import annotations

from pathlib import Path

import torch

from spatl_ray.config import Experiment
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.data.federated import FederatedData, federate
from spatl_ray.engine.backend import Backend, Say, SerialBackend, say_nothing
from spatl_ray.engine.blueprint import Blueprint, make_blueprint
from spatl_ray.engine.checks import check, combined, faults_without_data, faults_without_model
from spatl_ray.engine.messages import Facts
from spatl_ray.errors import EngineError, SpatlError


def prepare(
    experiment: Experiment, dataset: Dataset | None = None
) -> tuple[FederatedData, Blueprint]:
    """Load and deal the data, build model and algorithm: what can be wrong shows here, all at once.

    Args:
        experiment: the config.
        dataset: in-memory data instead of the config's.

    Raises:
        SpatlError: the one fault, as it is; or a ConfigError with all of them.
    """
    try:
        given = dataset or load_dataset(experiment.data, experiment.seed)
        data = federate(given, experiment)
    except SpatlError as error:
        raise combined([error, *faults_without_data(experiment)]) from error
    try:
        blueprint = make_blueprint(experiment, given.spec, torch.device("cpu"))
    except SpatlError as error:
        raise combined([error, *faults_without_model(experiment, data)]) from error
    check(experiment, data, blueprint)
    return data, blueprint


def make_backend(
    experiment: Experiment, data: FederatedData, states: Path, say: Say = say_nothing
) -> Backend:
    """The backend that the config names; Ray is imported only if it is asked for."""
    if experiment.engine.backend == "serial":
        return SerialBackend(experiment, data, states)
    from spatl_ray.engine.ray_backend import RayBackend

    return RayBackend(experiment, data, states, say)


def refuse_mixed(experiment: Experiment, facts: list[Facts], began: str | None = None) -> None:
    """Workers that would give different bits do not run together, nor go on with a run, unless it is allowed.

    Args:
        experiment: allows it, or not.
        facts: of the workers.
        began: the fingerprint of those that the run began with; None for a run that begins.

    Raises:
        EngineError: there are such workers.
    """
    if experiment.engine.allow_mixed:
        return
    kinds = sorted({f.fingerprint for f in facts})
    if began is not None and kinds != [began]:
        raise EngineError(
            "workers must have the CPU capability (or GPU) and the software set that the run began with "
            f"({began}), or its results are of neither; got {'; '.join(kinds)}. engine.allow_mixed=true, or "
            "--force of `spatl resume`, goes on anyway"
        )
    if len(kinds) > 1:
        raise EngineError(
            "workers must share one CPU capability (or GPU) and one software set, or results depend "
            f"on placement; got {'; '.join(kinds)}. engine.allow_mixed=true runs them anyway"
        )
