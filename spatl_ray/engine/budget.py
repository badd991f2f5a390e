"""Whether every client can afford the least that an algorithm sends."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spatl_ray.algorithms.base import ClientView
from spatl_ray.config import Experiment
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.errors import ConfigError
from spatl_ray.federation.devices import make_fleet
from spatl_ray.training.local import LocalResult
from spatl_ray.update import Update
from spatl_ray.wire.codec import encode


def check_budget(
    experiment: Experiment, blueprint: Blueprint, samples: npt.NDArray[np.int64]
) -> None:
    """Refuse a budget of bytes that no update of its client fits into.

    Tried on the client with the smallest budget, with an update of the untrained model.

    Raises:
        ConfigError: the update is too large, also if as few channels as possible travel.
    """
    if experiment.devices is None:
        return
    fleet = make_fleet(experiment.devices, experiment.clients, experiment.seed)
    if fleet.budget_bytes_up is None:
        return
    client = int(np.argmin(fleet.budget_bytes_up))
    budget = float(fleet.budget_bytes_up[client])
    least = untrained_bytes(experiment, blueprint, client, int(samples[client]), budget)
    if least > budget:
        raise ConfigError(
            f"devices.budget_bytes_up must be at least {least}, the bytes of an update of "
            f"{experiment.algorithm.name}, got {budget:g} for client {client}"
        )


def untrained_bytes(
    experiment: Experiment, blueprint: Blueprint, client: int, samples: int, budget: float
) -> int:
    """Encoded length of the update of a client that trained without moving."""
    algorithm, initial = blueprint.algorithm, blueprint.initial
    state = algorithm.start_client(initial)
    view = ClientView(
        client=client,
        round=0,
        lr=experiment.training.lr,
        samples=samples,
        received=algorithm.receive(algorithm.broadcast(algorithm.start_server(initial)), state),
        state=state,
        validate=lambda vector: None,
        seed=experiment.seed,
        budget_bytes_up=budget,
    )
    parts = {segment.part: 1 for segment in algorithm.layout.parameters.segments}
    results = [LocalResult(initial, 1, parts, 1, 0.0) for _ in algorithm.tasks(view)]
    proposal = algorithm.propose(view, results)
    update = Update(0, client, 1, samples, proposal.parts)
    return len(encode(update, algorithm.spaces(), algorithm.remembered(state)))
