"""What can be wrong with an experiment beyond its config, found before any work starts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from spatl_ray import seeding
from spatl_ray.algorithms.registry import make_algorithm
from spatl_ray.arrays import Bits
from spatl_ray.config import Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.attempts import in_main_thread
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.engine.budget import check_budget, least_upload
from spatl_ray.engine.clock import check_deadline
from spatl_ray.engine.device import wanted_device
from spatl_ray.engine.flops import training_flops
from spatl_ray.errors import ConfigError, SpatlError
from spatl_ray.federation.availability import ever_there, make_availability
from spatl_ray.federation.devices import Fleet, make_fleet
from spatl_ray.federation.samplers import make_sampler
from spatl_ray.loggers.registry import check_loggers
from spatl_ray.models.split import blank, model_factory
from spatl_ray.training.augment import check_augment
from spatl_ray.training.forward import check_compile
from spatl_ray.training.local import LocalTask, Trainer, sparse_scales
from spatl_ray.training.loss import load_loss, make_loss
from spatl_ray.training.together import check_together
from spatl_ray.update import Broadcast
from spatl_ray.wire.codec import encode

Check = Callable[[], object]


def check(experiment: Experiment, data: FederatedData, blueprint: Blueprint) -> None:
    """Try what a run will need besides data and model.

    Raises:
        SpatlError: an augmentation, loss, sampler, availability, device file or logger that cannot
            serve, a deadline that nobody can meet, or a budget that somebody cannot; all at once.
    """
    faults = faults_of(
        *_checks_with_data(experiment, data),
        lambda: sparse_scales(blueprint.model, experiment.training),
        lambda: check_together(blueprint.model, experiment.training, data.dataset.spec),
        lambda: _check_one_sample(experiment, data, blueprint),
        lambda: _check_deadline(experiment, data, blueprint),
        lambda: check_budget(experiment, blueprint, data.sizes("train")),
    )
    if faults:
        raise combined(faults)


def _checks_with_data(experiment: Experiment, data: FederatedData) -> tuple[Check, ...]:
    """What can be tried once there is data."""
    spec, samples = data.dataset.spec, data.sizes("train")
    return (
        lambda: check_augment(experiment.training.augment, spec),
        lambda: make_loss(experiment.training, spec.classes),
        lambda: check_compile(experiment.training, wanted_device(experiment.engine)),
        lambda: make_sampler(experiment.sampler, samples, experiment.seed, experiment.asked_size),
        lambda: _check_somebody(experiment),
        lambda: fleet_of(experiment),
        lambda: check_loggers(experiment),
        lambda: check_timeout(experiment, in_main_thread()),
    )


def check_timeout(experiment: Experiment, is_main: bool) -> None:
    """Refuse a limit that nothing enforces: only a process's main thread can be stopped.

    Args:
        experiment: with the limit.
        is_main: whether its run is in that thread. Ray's workers always train in theirs.

    Raises:
        ConfigError: it is such a limit.
    """
    seconds = experiment.engine.client_timeout
    if seconds is not None and experiment.engine.backend == "serial" and not is_main:
        raise ConfigError(
            "engine.client_timeout must be null with backend serial outside of the main thread, as in a "
            f"search's trial, where no client can be stopped; got {seconds:g}. Backend ray keeps it"
        )


def _check_one_sample(experiment: Experiment, data: FederatedData, blueprint: Blueprint) -> None:
    """Try a batch of one, where every batch is one: batch norm may not take it."""
    if experiment.training.batch_size > 1:
        return
    model, spec = blueprint.model, data.dataset.spec
    x = blank(spec, 1, model.parameters.dtype)
    y = torch.zeros(1, dtype=torch.int64)
    Trainer(model, experiment.training.model_copy(update={"steps": 1, "epochs": None})).run(
        LocalTask(blueprint.initial), x, y, 0.0, seeding.generator(experiment.seed, "one sample")
    )
    model.load(blueprint.initial)
    model.evaluate()


def _check_deadline(experiment: Experiment, data: FederatedData, blueprint: Blueprint) -> None:
    if experiment.devices is None or experiment.stragglers.deadline is None:
        return
    try:
        fleet, there = fleet_of(experiment), _there(experiment)
    except SpatlError:
        return  # Told already.
    if not there.any():
        return  # Told already.
    flops = training_flops(blueprint.model, data.dataset.spec)
    samples = data.sizes("train")
    if fleet is not None:
        up, down = least_upload(experiment, blueprint, samples, fleet), first_broadcast(blueprint)
        check_deadline(experiment, fleet, flops, samples, up, down, there)


def _there(experiment: Experiment) -> Bits:
    """Which clients are available in any round, as far as that is known."""
    spec, clients = experiment.availability, experiment.clients
    available = make_availability(spec, clients, experiment.seed)
    return ever_there(available, clients, experiment.rounds)


def _check_somebody(experiment: Experiment) -> None:
    """Refuse a run in none of whose rounds anybody is available."""
    if not _there(experiment).any():
        field = "file" if experiment.availability.name == "trace" else "share"
        raise ConfigError(
            f"availability.{field} must have some client in one of the rounds 0 to "
            f"{experiment.rounds - 1}, got none"
        )


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
        lambda: make_algorithm(experiment.algorithm),
        lambda: load_loss(experiment.training.loss),
        lambda: make_sampler(experiment.sampler, ones, experiment.seed, experiment.asked_size),
        lambda: make_availability(experiment.availability, experiment.clients, experiment.seed),
        lambda: fleet_of(experiment),
        lambda: check_loggers(experiment),
    )


def faults_without_model(experiment: Experiment, data: FederatedData) -> list[SpatlError]:
    """Further faults of an experiment whose model or algorithm cannot be built."""
    algorithm = faults_of(lambda: make_algorithm(experiment.algorithm))
    return [*algorithm, *faults_of(*_checks_with_data(experiment, data))]


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
    """The one fault as it is, or several as one; what two checks say alike is said once."""
    if len(faults) == 1:
        return faults[0]
    lines = [line for fault in faults for line in str(fault).splitlines()]
    return ConfigError(list(dict.fromkeys(lines)))
