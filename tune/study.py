"""What a search is: an experiment, a space, objectives and options; and the experiment of each trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spatl_ray.addresses import is_address
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from
from spatl_ray.overrides import overridden
from tune.space import Point, Space, parse_space

PBT = "pbt"


@dataclass(frozen=True)
class Study:
    """A search.

    Attributes:
        sweep_id: its name in the results.
        raw: the experiment as its file says it.
        overrides: of the experiment.
        space: YAML of the search space.
        objectives: names of `tune.objectives`; the schedulers look at the first.
        search: tpe, random or grid.
        scheduler: none, asha, asha-bytes, median or pbt.
        seed: of the points.
        grace: rounds (or bytes) before a trial can be stopped, or between two changes of PBT.
        reduction: ASHA goes on with one trial of so many at each rung.
        most: rounds (or bytes) after which ASHA ends a trial.
    """

    sweep_id: str
    raw: Mapping[str, Any]
    overrides: tuple[str, ...]
    space: str
    objectives: tuple[str, ...]
    search: str
    scheduler: str
    seed: int
    grace: int
    reduction: float
    most: int

    def to_json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Study:
        """What `to_json` wrote."""
        return cls.from_fields(json.loads(text))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Study:
        """What `to_json` wrote, read.

        Raises:
            TypeError, KeyError: it is something else.
        """
        lists = {name: tuple(fields[name]) for name in ("overrides", "objectives")}
        return cls(**{**fields, **lists})

    @cached_property
    def ranges(self) -> Space:
        """The space."""
        return parse_space(self.space, "the space")

    def experiment(self, trial: str, point: Point) -> Experiment:
        """The experiment of a trial; its name tells search and trial, so that no two share a run.

        Raises:
            ConfigError: the experiment cannot run there.
        """
        texts = [*self.overrides, *self.ranges.texts(point)]
        raw = overridden(self.raw, texts)
        experiment = as_trial(experiment_from(raw), raw)
        results = experiment.results.model_copy(
            update={
                "sweep_id": self.sweep_id,
                "trial_id": trial,
                "folder": str(Path(experiment.results.folder).absolute()),
            }
        )
        changed: dict[str, object] = {"name": f"{self.sweep_id}.{trial}", "results": results}
        if self.scheduler == PBT:  # what is cloned must be where the scheduler saw it
            changed["checkpoints"] = experiment.checkpoints.model_copy(
                update={"every": 1, "seconds": 0.0}
            )
        return experiment.model_copy(update=changed)


def as_trial(experiment: Experiment, raw: Mapping[str, Any]) -> Experiment:
    """The experiment on the serial backend, unless it says itself that it takes Ray's.

    One of many runs is fastest in one process; the numbers are the same. Through Ray it has one worker,
    unless it says how many: one a CPU core would not fit into what is reserved for it.

    Args:
        experiment: the config.
        raw: the mapping that it was made of.

    Raises:
        ConfigError: its results are at an address.
    """
    if is_address(experiment.results.folder):
        raise ConfigError(
            "results.folder must be a folder in a search or a sweep, whose processes share it, got "
            f"{experiment.results.folder!r}"
        )
    engine = raw.get("engine")
    if not (isinstance(engine, Mapping) and "backend" in engine):
        changed: dict[str, object] = {"backend": "serial"}
    elif experiment.engine.backend == "ray" and experiment.engine.workers is None:
        changed = {"workers": 1}
    else:
        return experiment
    return experiment.model_copy(update={"engine": experiment.engine.model_copy(update=changed)})


def check_branches(space: Space, experiment: Experiment) -> None:
    """Refuse what PBT cannot change in the middle of a run.

    Raises:
        ConfigError: one line a fault.
    """
    from spatl_ray.engine.branch import CHANGEABLE

    paths = [path for dimension in space.dimensions for path in dimension.paths]
    faults = [
        f"{path} must be one of {', '.join(CHANGEABLE)} with pbt, which changes it in the middle of a run"
        for path in paths
        if path not in CHANGEABLE
    ]
    if experiment.engine.state_mirror:
        faults.append("engine.state_mirror must be false with pbt, which copies client states")
    if "://" in (experiment.checkpoints.folder or ""):
        faults.append(
            f"checkpoints.folder must be a local folder with pbt, got {experiment.checkpoints.folder!r}"
        )
    if faults:
        raise ConfigError(faults)
