"""What can be wrong with an experiment beyond its config, found before any work starts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spatl_ray.algorithms.registry import make_algorithm
from spatl_ray.config import Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.engine.clock import check_deadline
from spatl_ray.engine.flops import training_flops
from spatl_ray.errors import ConfigError, SpatlError
from spatl_ray.federation.availability import make_availability
from spatl_ray.federation.devices import Fleet, make_fleet
from spatl_ray.federation.samplers import make_sampler
from spatl_ray.loggers.registry import make_loggers
from spatl_ray.models.split import model_factory
from spatl_ray.training.augment import check_augment
from spatl_ray.training.loss import make_loss
from spatl_ray.update import Broadcast
from spatl_ray.wire.codec import encode

Check = Callable[[], object]


def check(experiment: Experiment, data: FederatedData, blueprint: Blueprint) -> None:
    """Try what a run will need besides data and model.

    Raises:
        SpatlError: an augmentation, loss, sampler, availability or device file that cannot serve, or
            a deadline that nobody can meet; all of them at once.
    """
    samples, spec, seed = data.sizes("train"), data.dataset.spec, experiment.seed
    faults = faults_of(
        lambda: check_augment(experiment.training.augment, spec),
        lambda: make_loss(experiment.training, spec.classes),
        lambda: make_sampler(experiment.sampler, samples, seed),
        lambda: make_availability(experiment.availability, experiment.clients, seed),
        lambda: _check_fleet(experiment, data, blueprint),
        lambda: make_loggers(experiment),
    )
    if faults:
        raise combined(faults)


def _check_fleet(experiment: Experiment, data: FederatedData, blueprint: Blueprint) -> None:
    fleet = fleet_of(experiment)
    if fleet is not None and experiment.stragglers.deadline is not None:
        flops = training_flops(blueprint.model, data.dataset.spec)
        down = first_broadcast(blueprint)
        check_deadline(experiment, fleet, flops, data.sizes("train"), down)


def first_broadcast(blueprint: Blueprint) -> int:
    """Bytes of the first round's broadcast."""
    algorithm = blueprint.algorithm
    parts = algorithm.broadcast(algorithm.start_server(blueprint.initial))
    return len(encode(Broadcast(0, parts), algorithm.spaces()))


def fleet_of(experiment: Experiment) -> Fleet | None:
    """The clients' devices, or None if no time is simulated."""
    if experiment.devices is None:
        return None
    return make_fleet(experiment.devices, experiment.clients, experiment.seed)


def faults_without_data(experiment: Experiment) -> list[SpatlError]:
    """Further faults of an experiment whose data cannot be had: there is no shape for the model."""
    ones = np.ones(experiment.clients, np.int64)
    return faults_of(
        lambda: model_factory(experiment.model.name),
        lambda: make_sampler(experiment.sampler, ones, experiment.seed),
        lambda: make_algorithm(experiment.algorithm),
        lambda: make_availability(experiment.availability, experiment.clients, experiment.seed),
        lambda: fleet_of(experiment),
    )


def faults_of(*checks: Check) -> list[SpatlError]:
    """What the checks raise."""
    faults = []
    for check_ in checks:
        try:
            check_()
        except SpatlError as error:
            faults.append(error)
    return faults


def combined(faults: list[SpatlError]) -> SpatlError:
    """The one fault as it is, or several as one."""
    if len(faults) == 1:
        return faults[0]
    return ConfigError([line for fault in faults for line in str(fault).splitlines()])
