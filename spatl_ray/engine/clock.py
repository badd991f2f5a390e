"""Simulated time: who came too late, and how long the server waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from spatl_ray.config import Experiment, OwnAlgorithm, PowerOfChoice
from spatl_ray.engine.messages import ClientReport
from spatl_ray.errors import ConfigError
from spatl_ray.federation.devices import Fleet, fastest_round
from spatl_ray.training.batches import processed_samples

ANSWERED = ("pending", "accepted", "clipped", "rejected")
"""Statuses of clients that answered before the server stopped waiting."""


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

    The server waits for a cohort of updates. If fewer come, it waits until everybody has answered, if
    only that training diverged, but not beyond the deadline. A client that failed never answers: it is
    waited for until the deadline, and without one not at all.

    Args:
        experiment: cohort and deadline.
        reports: of the clients that were asked.
        elapsed: seconds of the round that had passed before they were asked.
    """
    answers = [r for r in reports if r.times is not None and r.status in ANSWERED]
    updates = [r for r in answers if r.has_update]
    if len(updates) >= min(experiment.cohort_size, len(reports)):
        return elapsed + _last(updates)
    end, deadline = elapsed + _last(answers), experiment.stragglers.deadline
    if deadline is None:
        return end
    latest = max(deadline, elapsed)
    return latest if len(answers) < len(reports) else min(end, latest)


def _last(reports: Sequence[ClientReport]) -> float:
    """When the last of some clients had answered, after they were asked."""
    return max((r.times.total for r in reports if r.times is not None), default=0.0)


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
    bytes_up: int,
    bytes_down: int,
    there: npt.NDArray[np.bool_],
) -> None:
    """Refuse a deadline that not even the fastest client can meet.

    An own algorithm may train for less than the config says: its deadline is not judged.

    Args:
        experiment: the deadline, and how long a client trains.
        fleet: the devices.
        flops: of training on one sample.
        samples: training samples of each client.
        bytes_up: length of the smallest update.
        bytes_down: length of the broadcast.
        there: whether a client is available in any round, shape (clients,).

    Raises:
        ConfigError: download, training and the upload of that update take every client longer.
    """
    deadline = experiment.stragglers.deadline
    if deadline is None or isinstance(experiment.algorithm, OwnAlgorithm):
        return
    training = experiment.training
    processed = processed_samples(
        samples, training.batch_size, training.drop_last, training.epochs, training.steps
    )
    asking = _least_asking(
        experiment, fastest_round(fleet, flops / 3 * samples.astype(np.float64), 0, bytes_down)
    )
    down = 0 if asking else bytes_down  # Who told a loss has the broadcast already.
    least = asking + fastest_round(fleet, flops * processed.astype(np.float64), bytes_up, down)
    fastest = int(np.argmin(np.where(there, least, np.inf)))
    if least[fastest] > deadline:
        before = f" after {asking:.3g} s in which losses are asked for" if asking else ""
        raise ConfigError(
            f"stragglers.deadline must be at least {least[fastest]:.3g} s, which the fastest client "
            f"({fastest}) needs for download, training and upload{before}, got {deadline:g}"
        )


def _least_asking(experiment: Experiment, seconds: npt.NDArray[np.float64]) -> float:
    """The least simulated seconds until all candidates told their losses; 0 if that is not known.

    Args:
        experiment: sampler and availability.
        seconds: that a client needs to tell its loss, shape (clients,).
    """
    sampler = experiment.sampler
    if not isinstance(sampler, PowerOfChoice) or sampler.loss != "current":
        return 0.0
    if experiment.availability.name != "always":
        return 0.0
    return float(np.sort(seconds)[sampler.candidates - 1])
