"""Where ASHA ends a trial, in rounds or in bytes, and when schedulers first decide."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from
from spatl_ray.overrides import overridden
from tune.fields import override
from tune.space import Dimension, Space
from tune.study import PBT

RUNGS = 9
"""The first rung of ASHA is at this part of its end, by default."""

SECTIONS = ("sample_ratio", "stragglers", "model", "wire")
"""What messages are made of, and how many there are: fields, and whole sections."""

SINGLE = (
    "algorithm",
    "algorithm.name",
    "algorithm.options",
    "algorithm.transfer",
    "algorithm.control",
    "training",
    "training.dtype",
    "training.buffers",
)
"""Further such fields, in sections whose other fields change no dense message."""


def most_of(
    scheduler: str,
    experiment: Experiment,
    space: Space,
    raw: Mapping[str, Any],
    overrides: Sequence[str],
) -> int:
    """Rounds of a trial, or the bytes that no trial sends more of.

    Args:
        scheduler: counts bytes if it is asha-bytes.
        experiment: of the search.
        space: of its trials.
        raw: the experiment as its file says it.
        overrides: of the experiment.

    Raises:
        ConfigError: nothing is sent.
    """
    if scheduler != "asha-bytes":
        return experiment.rounds
    texts = [*overrides, *space.fixed_texts()]
    heaviest = max(
        _bytes(experiment_from(overridden(raw, [*texts, *chosen]))) for chosen in _kinds(space)
    )
    if not heaviest:
        raise ConfigError(
            f"--scheduler asha-bytes needs an algorithm that sends bytes, got {experiment.algorithm.name}"
        )
    return heaviest


def grace_of(scheduler: str, experiment: Experiment, most: int) -> int:
    """Rounds or bytes before a trial can be stopped, unless it is told.

    Args:
        scheduler: whose.
        experiment: of the search.
        most: rounds or bytes of a trial.
    """
    if scheduler == PBT:
        return max(experiment.evaluation.every, most // 5)
    least = 1 if scheduler == "asha-bytes" else experiment.evaluation.every
    return min(most, max(least, most // RUNGS))


def _bytes(experiment: Experiment) -> int:
    """What a run sends at most."""
    from spatl_ray.engine.budget import most_bytes
    from spatl_ray.engine.prepare import prepare

    _, blueprint = prepare(experiment)
    return experiment.rounds * experiment.asked_size * most_bytes(experiment, blueprint)


def _kinds(space: Space) -> Iterator[list[str]]:
    """Overrides for every combination of extremes that may send other messages."""
    columns = [list(_texts(each)) for each in space.dimensions]
    for chosen in itertools.product(*(column for column in columns if column)):
        yield list(itertools.chain(*chosen))


def _texts(dimension: Dimension) -> Iterator[list[str]]:
    """What a range sets of the fields that matter, each combination once."""
    found: dict[str, list[str]] = {}
    for label in dimension.extremes():
        fields = {path: v for path, v in dimension.fields(label).items() if _matters(path)}
        found[json.dumps(fields)] = [override(path, value) for path, value in fields.items()]
    yield from (texts for texts in found.values() if texts)


def _matters(path: str) -> bool:
    return path in SINGLE or path.partition(".")[0] in SECTIONS
