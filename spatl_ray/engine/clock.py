"""Simulated time: who came too late, and how long the server waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from spatl_ray.config import Experiment
from spatl_ray.engine.messages import ClientReport
from spatl_ray.errors import ConfigError
from spatl_ray.federation.devices import Fleet, fastest_round

ANSWERED = ("pending", "accepted", "clipped", "rejected")
"""Statuses of clients whose update arrived before the server stopped waiting."""


def surplus(reports: Sequence[ClientReport], cohort: int) -> frozenset[int]:
    """The clients whose updates arrive after the first `cohort` ones; ties go to the lower client."""
    answers = sorted(
        (r.times.total, r.client) for r in reports if r.status == "pending" and r.times is not None
    )
    return frozenset(client for _, client in answers[cohort:])


def round_seconds(experiment: Experiment, reports: Sequence[ClientReport]) -> float:
    """Simulated seconds that the server waits in a round.

    It waits for the last update that it takes, and until the deadline if fewer than a cohort arrive.
    A client that failed sends nothing: without a deadline it is not waited for.
    """
    arrived = [r.times.total for r in reports if r.times is not None and r.status in ANSWERED]
    deadline = experiment.stragglers.deadline
    if deadline is not None and len(arrived) < experiment.cohort_size:
        return deadline
    return max(arrived, default=0.0)


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
    return max(
        fleet.device(client).seconds(flops / 3 * float(samples[client]), 0, size).total
        for client, size in bytes_down.items()
    )


def processed_samples(
    experiment: Experiment, samples: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Samples that each client processes in a round, with repetition, by the config's epochs or steps."""
    training = experiment.training
    if training.steps is not None:
        return training.steps * np.minimum(samples, training.batch_size).astype(np.float64)
    return (training.epochs or 1) * samples.astype(np.float64)


def check_deadline(
    experiment: Experiment,
    fleet: Fleet,
    flops: float,
    samples: npt.NDArray[np.int64],
    bytes_down: int,
) -> None:
    """Refuse a deadline that not even the fastest client can meet.

    Raises:
        ConfigError: download and training alone take every client longer.
    """
    deadline = experiment.stragglers.deadline
    if deadline is None:
        return
    least = fastest_round(fleet, flops * processed_samples(experiment, samples), bytes_down)
    fastest = int(np.argmin(least))
    if least[fastest] > deadline:
        raise ConfigError(
            f"stragglers.deadline must be at least {least[fastest]:.3g} s, which the fastest client "
            f"({fastest}) needs for download and training, got {deadline:g}"
        )
