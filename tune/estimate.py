"""What a sweep will cost: a few local steps of each kind of run, measured, and the rest counted."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spatl_ray import run
from spatl_ray.config import Always, Checkpoints, Experiment, Results, Stragglers, Uniform
from spatl_ray.engine.prepare import prepare
from spatl_ray.errors import ConfigError, SpatlError
from spatl_ray.results.reader import read_rounds
from tune.grid import Cell

FEW, MANY = 5, 25
"""Local steps of the two pilots of a kind: what they differ by tells what a step costs."""


@dataclass(frozen=True)
class Pace:
    """How fast runs of a kind are here, with one process.

    Attributes:
        start: seconds before the first round.
        client: seconds of a client in a round, apart from its steps.
        step: seconds of a local step.
        evaluation: seconds of an evaluation.
        samples: mean training samples of a client.
    """

    start: float
    client: float
    step: float
    evaluation: float
    samples: float

    def seconds(self, experiment: Experiment) -> float:
        """Of a whole run, about."""
        training = experiment.training
        passes = math.ceil(self.samples / training.batch_size)
        steps = training.steps or (training.epochs or 1) * passes
        trained = experiment.asked_size * (self.client + steps * self.step)
        evaluations = math.ceil(experiment.rounds / experiment.evaluation.every)
        return self.start + experiment.rounds * trained + evaluations * self.evaluation


Kind = tuple[str, ...]


def kind_of(experiment: Experiment) -> Kind:
    """What decides how fast a run is; runs of one kind share a pilot."""
    training = experiment.training.model_dump_json(exclude={"epochs", "steps", "lr", "momentum"})
    sections = (experiment.data, experiment.model, experiment.algorithm, experiment.evaluation)
    parts = [section.model_dump_json() for section in sections]
    return (str(experiment.clients), training, *parts)


def paces(cells: Sequence[Cell], told: Callable[[str], None]) -> dict[Kind, Pace]:
    """The pace of each kind of run; so each kind's data, model and algorithm are tried, too.

    Args:
        cells: the runs.
        told: what is being measured.

    Raises:
        ConfigError: kinds that cannot run; one line a fault.
    """
    found: dict[Kind, Pace] = {}
    faults: dict[str, None] = {}
    firsts: dict[Kind, Cell] = {}
    for cell in cells:
        firsts.setdefault(kind_of(cell.experiment), cell)
    for kind, cell in firsts.items():
        told(", ".join(cell.values.values()))
        try:
            found[kind] = _pace(cell.experiment)
        except ConfigError as error:
            faults |= dict.fromkeys(error.faults)
        except SpatlError as error:
            faults[f"{error}"] = None
    if faults:
        raise ConfigError(list(faults))
    return found


def _pace(experiment: Experiment) -> Pace:
    """Rounds of one client on the serial backend, with few and with more steps."""
    data, _ = prepare(_pilot(experiment, FEW, Path()))
    start, few, evaluation = _measured(experiment, FEW)
    _, many, _ = _measured(experiment, MANY)
    step = max(0.0, (many - few) / (MANY - FEW))
    client = max(0.0, few - FEW * step)
    return Pace(start, client, step, evaluation, float(data.sizes("train").mean()))


def _measured(experiment: Experiment, steps: int) -> tuple[float, float, float]:
    """Seconds before the first round, of a client's round, and of an evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        summary = run(_pilot(experiment, steps, Path(folder)))
        whole = time.perf_counter() - begun
        rows = read_rounds(Path(folder), summary.run_id)
    warm = rows[-1]  # in the first round, much is done for the first time
    rounds = sum(row["seconds_total"] for row in rows)
    return (
        whole - rounds,
        warm["seconds_total"] - warm["seconds_evaluate"],
        warm["seconds_evaluate"],
    )


def _pilot(experiment: Experiment, steps: int, folder: Path) -> Experiment:
    training = experiment.training.model_copy(update={"epochs": None, "steps": steps})
    engine = experiment.engine.model_copy(update={"backend": "serial", "state_mirror": False})
    return experiment.model_copy(
        update={
            "rounds": 2,
            "sample_ratio": 1 / experiment.clients,
            "training": training,
            "engine": engine,
            "sampler": Uniform(),
            "availability": Always(),
            "stragglers": Stragglers(),
            "checkpoints": Checkpoints(every=0),
            "results": Results(folder=str(folder)),
        }
    )
