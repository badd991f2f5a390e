"""Whether every client can afford the least that an algorithm sends and keeps."""

from __future__ import annotations

import numpy as np

from spatl_ray.algorithms.base import BUFFERS, ClientView
from spatl_ray.arrays import Doubles, Integers
from spatl_ray.config import Algorithm, Experiment, OwnAlgorithm, Spatl
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.errors import ConfigError
from spatl_ray.federation.devices import Fleet, make_fleet
from spatl_ray.plugins import is_dotted
from spatl_ray.training.local import LocalResult
from spatl_ray.update import WHOLE, Broadcast, Update, keep
from spatl_ray.wire.codec import encode
from spatl_ray.wire.masks import packed_size


def check_budget(experiment: Experiment, blueprint: Blueprint, samples: Integers) -> None:
    """Refuse budgets that the client with the smallest one cannot keep to.

    Bytes are those of an update of the untrained model.

    Raises:
        ConfigError: the update is too large, also if as few channels as possible travel; or every
            layer at its least keep ratio has too many FLOPs.
    """
    if experiment.devices is None:
        return
    fleet = make_fleet(experiment.devices, experiment.clients, experiment.seed)
    if fleet.budget_flops is not None:
        _check_flops(blueprint.algorithm.flops_floor, fleet.budget_flops)
    if fleet.budget_bytes_up is not None:
        _check_bytes(experiment, blueprint, samples, fleet.budget_bytes_up)


def _check_flops(floor: float, budgets: Doubles) -> None:
    client, budget = _tightest(budgets)
    if budget < floor:
        raise ConfigError(
            f"devices.budget_flops must be at least {floor:.4f} of the dense network's, which every "
            f"layer at its least keep ratio costs, got {budget:g} for client {client}"
        )


def _check_bytes(
    experiment: Experiment, blueprint: Blueprint, samples: Integers, budgets: Doubles
) -> None:
    client, budget = _tightest(budgets)
    least = untrained_bytes(experiment, blueprint, client, int(samples[client]), budget)
    if least > budget:
        raise ConfigError(
            f"devices.budget_bytes_up must be at least {least}, the bytes of an update of "
            f"{experiment.algorithm.name}, got {budget:g} for client {client}"
        )


def _tightest(budgets: Doubles) -> tuple[int, float]:
    """The client with the smallest budget, and the budget."""
    client = int(np.argmin(budgets))
    return client, float(budgets[client])


def least_upload(
    experiment: Experiment, blueprint: Blueprint, samples: Integers, fleet: Fleet
) -> int:
    """Bytes of the smallest update: of an untrained model, from the client that may send least.

    0 for an own algorithm or criterion, which may not take a model that did not move.
    """
    if _judges_movement(experiment.algorithm):
        return 0
    client, budget = 0, None
    if fleet.budget_bytes_up is not None:
        client, budget = _tightest(fleet.budget_bytes_up)
    return untrained_bytes(experiment, blueprint, client, int(samples[client]), budget)


def _judges_movement(algorithm: Algorithm) -> bool:
    """Whether an own part would look at an update."""
    if not isinstance(algorithm, Spatl):
        return isinstance(algorithm, OwnAlgorithm)
    inference = algorithm.inference
    return is_dotted(algorithm.criterion) or (
        inference is not None and is_dotted(inference.criterion)
    )


def untrained_bytes(
    experiment: Experiment,
    blueprint: Blueprint,
    client: int,
    samples: int,
    budget: float | None,
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
        validate=lambda vector, limit=None, channels=None: None,
        seed=experiment.seed,
        budget_bytes_up=budget,
    )
    parts = {segment.part: 1 for segment in algorithm.layout.parameters.segments}
    results = [LocalResult(initial, 1, parts, 1, 0.0) for _ in algorithm.tasks(view)]
    proposal = algorithm.propose(view, results)
    update = Update(0, client, 1, samples, proposal.parts)
    return len(encode(update, algorithm.spaces(), algorithm.remembered(state)))


def most_bytes(experiment: Experiment, blueprint: Blueprint) -> int:
    """Bytes of a client's round at most: a broadcast, and an update that leaves no position out.

    Counted up are all vectors that are summed (of an own algorithm all that messages may carry), each with
    a bit a position for its mask; down what the server has before the first round. 0 if nothing travels.

    Args:
        experiment: the config.
        blueprint: of the experiment.
    """
    algorithm, training = blueprint.algorithm, experiment.training
    summed = {each.name for each in algorithm.accumulators()}
    is_own = isinstance(experiment.algorithm, OwnAlgorithm)
    server = algorithm.start_server(blueprint.initial)
    down = {**algorithm.broadcast(server), **algorithm.personal(server, 0)}
    up = {}
    for name, space in algorithm.spaces().items():
        if space.size and (is_own or name in summed):
            kind = training.dtype if name == BUFFERS else algorithm.setting.uplink
            up[name] = keep(np.zeros(space.size), WHOLE, space, kind)
    masks = sum(packed_size(algorithm.spaces()[name].size) for name in up)
    messages = Broadcast(0, down), Update(0, 0, 1, 1, up)
    sent = sum(len(encode(message, algorithm.spaces())) for message in messages)
    return sent + masks
