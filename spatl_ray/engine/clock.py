"""Simulated time: who came too late, and how long the server waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from spatl_ray.config import Experiment, OwnAlgorithm
from spatl_ray.engine.messages import ClientReport
from spatl_ray.errors import ConfigError
from spatl_ray.federation.devices import Fleet, fastest_round
from spatl_ray.training.batches import processed_samples

ANSWERED = ("pending", "accepted", "clipped", "rejected")
"""Statuses of clients whose update arrived before the server stopped waiting."""


def surplus(reports: Sequence[ClientReport], cohort: int) -> frozenset[int]:
    """The clients whose updates arrive after the first `cohort` ones; ties go to the lower client."""
    answers = sorted(
        (r.times.total, r.client) for r in reports if r.status == "pending" and r.times is not None
    )
    return frozenset(client for _, client in answers[cohort:])


def round_seconds(
    experiment: Experiment, reports: Sequence[ClientReport], elapsed: float = 0.0
) -> float:
    """Simulated seconds of a round.

    The server waits for the last update that it takes, and until the deadline if fewer than a cohort
    of those it asked arrive. A client that failed sends nothing: without a deadline it is not waited
    for.

    Args:
        experiment: cohort and deadline.
        reports: of the clients that were asked.
        elapsed: seconds of the round that had passed before they were asked.
    """
    arrived = [r.times.total for r in reports if r.times is not None and r.status in ANSWERED]
    deadline = experiment.stragglers.deadline
    if deadline is not None and len(arrived) < min(experiment.cohort_size, len(reports)):
        return max(deadline, elapsed)
    return elapsed + max(arrived, default=0.0)


def probe_seconds(
    fleet: Fleet, flops: float, samples: npt.NDArray[np.int64], bytes_down: Mapping[int, int]
) -> float:
    """Simulated seconds until all of some clients have told their loss: download and forward pass.

    Args:
        fleet: the devices.
        flops: of training on one sample; a forward pass takes a third.
        samples: training samples of each client.
        bytes_down: what each asked client received.
    """
    seconds = (
        fleet.device(client).seconds(flops / 3 * float(samples[client]), 0, size).total
        for client, size in bytes_down.items()
    )
    return max(seconds, default=0.0)


def check_deadline(
    experiment: Experiment,
    fleet: Fleet,
    flops: float,
    samples: npt.NDArray[np.int64],
    bytes_down: int,
) -> None:
    """Refuse a deadline that not even the fastest client can meet.

    An own algorithm may train for less than the config says: its deadline is not judged.

    Raises:
        ConfigError: download and training alone take every client longer.
    """
    deadline = experiment.stragglers.deadline
    if deadline is None or isinstance(experiment.algorithm, OwnAlgorithm):
        return
    training = experiment.training
    processed = processed_samples(
        samples, training.batch_size, training.drop_last, training.epochs, training.steps
    )
    least = fastest_round(fleet, flops * processed.astype(np.float64), bytes_down)
    fastest = int(np.argmin(least))
    if least[fastest] > deadline:
        raise ConfigError(
            f"stragglers.deadline must be at least {least[fastest]:.3g} s, which the fastest client "
            f"({fastest}) needs for download and training, got {deadline:g}"
        )
