"""Rounds to draw cohorts for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from spatl_ray import seeding
from spatl_ray.arrays import Bits, Doubles, Integers
from spatl_ray.config import Experiment
from spatl_ray.federation.sampler import Draw
from spatl_ray.federation.samplers import make_sampler


def some_draw(
    size: int,
    round_: int = 0,
    seed: int = 0,
    there: Bits | None = None,
    last: Callable[[Integers], Doubles] | None = None,
    current: Callable[[Integers], Doubles] | None = None,
    turns: Integers | None = None,
) -> Draw:
    """A round's draw.

    Args:
        there: whether each client can take part, or None for all.
        turns: how often each client was drawn before; None for never.
        last, current: losses of clients; where left out, asking for them is an error.
    """
    return Draw(
        round=round_,
        size=size,
        generator=seeding.generator(seed, "cohort", round_),
        available=lambda asked: np.ones(len(asked), bool) if there is None else there[asked],
        turns=lambda asked: np.zeros(len(asked), int) if turns is None else turns[asked],
        last_losses=last or _not_wanted,
        current_losses=current or _not_wanted,
    )


def sample_cohort(experiment: Experiment, round_: int) -> Integers:
    """The cohort of a run that samples uniformly, in ascending order."""
    draw = some_draw(experiment.asked_size, round_, experiment.seed)
    samples = np.ones(experiment.clients, np.int64)
    return np.sort(
        make_sampler(experiment.sampler, samples, experiment.seed, experiment.asked_size).cohort(
            draw
        )
    )


def _not_wanted(asked: Integers) -> Doubles:
    raise LookupError(f"nobody should ask for the losses of {asked}")


def chi_square(counts: npt.ArrayLike, chances: Sequence[float]) -> float:
    """sum (observed - expected)^2 / expected, with the chances' sum as the whole."""
    observed = np.asarray(counts, np.float64)
    expected = np.asarray(chances) / np.sum(chances) * observed.sum()
    return float(((observed - expected) ** 2 / expected).sum())
