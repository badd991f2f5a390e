"""One run: everything that decides its numbers, and where it runs."""

from __future__ import annotations

import hashlib
import json
from math import ceil
from typing import Annotated, Literal

from pydantic import Field, model_validator

from spatl_ray.config.agent import SHIPPED
from spatl_ray.config.algorithms import Algorithm, OwnAlgorithm, Spatl
from spatl_ray.config.attack import Attack
from spatl_ray.config.base import LATER, Count, Fraction, Strict, contents
from spatl_ray.config.checkpoints import Checkpoints
from spatl_ray.config.data import Data, Dirichlet, Partition
from spatl_ray.config.engine import Engine, Results
from spatl_ray.config.federation import (
    Always,
    Availability,
    Devices,
    PowerOfChoice,
    Sampler,
    Stragglers,
    Traced,
    Uniform,
)
from spatl_ray.config.training import Aggregation, Evaluation, Model, Training, Wire

FROM_ROOT = ("images", "parquet")
"""Data sets that are what lies at data.root; of others it is only the place."""


ELSEWHERE = {"engine", "checkpoints", "results", "name"}
"""What decides no number."""


class Experiment(Strict):
    """One run: everything that decides its numbers, and where it runs.

    Attributes:
        clients: number N of clients.
        sample_ratio: share of the clients in each round's cohort.
        objective: a client's weight p_i in the objective: its share of samples, or 1/N.
        sampler: who is drawn into a cohort.
        availability: who can be drawn in a round.
        devices: what clients' devices can do, which gives simulated seconds; None leaves them out.
        stragglers: what the server does about slow clients.
        attack: what hostile clients do, and how many they are; None leaves everybody honest.
    """

    name: str = Field(default="experiment", pattern=r"^[\w.-]+$")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    rounds: Count = 10
    clients: Count = 10
    sample_ratio: Fraction = 1.0
    objective: Literal["samples", "uniform"] = "samples"
    sampler: Sampler = Uniform()
    availability: Availability = Always()
    devices: Devices | None = None
    stragglers: Stragglers = Stragglers()
    data: Data = Data()
    partition: Partition = Dirichlet()
    model: Model = Model()
    training: Training = Training()
    algorithm: Algorithm = Spatl()
    aggregation: Aggregation = Aggregation()
    attack: Annotated[Attack | None, LATER] = None
    wire: Wire = Wire()
    evaluation: Evaluation = Evaluation()
    engine: Engine = Engine()
    checkpoints: Checkpoints = Checkpoints()
    results: Results = Results()

    @model_validator(mode="after")
    def _residuals_arrive_once(self) -> Experiment:
        if not getattr(self.algorithm, "error_feedback", False):
            return self
        faults = []
        if self.aggregation.rule != "mean":
            faults.append(
                f"aggregation.rule must be mean with error_feedback, got {self.aggregation.rule!r}: "
                "another rule would deliver the residual of several rounds at full weight"
            )
        if self.aggregation.clip_norm is not None:
            faults.append(
                "aggregation.clip_norm must be null with error_feedback, got "
                f"{self.aggregation.clip_norm:g}: what is cut off would come back for ever"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _clocked(self) -> Experiment:
        late = self.stragglers
        if self.devices is None and late != Stragglers():
            field = "oversample" if late.deadline is None else "deadline"
            raise ValueError(
                f"devices must be given with stragglers.{field}, got null: without them no time passes"
            )
        if self.cohort_size < self.asked_size > self.clients:
            raise ValueError(
                f"stragglers.oversample must ask at most {self.clients} clients, "
                f"got {late.oversample:g} times {self.cohort_size}"
            )
        return self

    @model_validator(mode="after")
    def _budget_is_obeyed(self) -> Experiment:
        budget = None if self.devices is None else self.devices.budget_flops
        algorithm = self.algorithm
        if budget is None or isinstance(algorithm, OwnAlgorithm):
            return self
        if not (isinstance(algorithm, Spatl) and algorithm.keeps_for_inference):
            raise ValueError(
                "devices.budget_flops must be null without algorithm.selection and algorithm.inference "
                "or algorithm.agent of spatl, which say what is kept for inference, got "
                f"{budget.name} with {algorithm.name}"
            )
        if algorithm.agent is not None and algorithm.agent.measure != "flops":
            raise ValueError(
                "algorithm.agent.measure must be flops with devices.budget_flops, got "
                f"{algorithm.agent.measure}"
            )
        return self

    @model_validator(mode="after")
    def _agent_can_learn(self) -> Experiment:
        agent = self.algorithm.agent if isinstance(self.algorithm, Spatl) else None
        if agent is not None and agent.participations and not self.data.split.validation:
            raise ValueError(
                "data.split.validation must be above 0 with algorithm.agent, which is fine-tuned on it, "
                "got 0; or set algorithm.agent.participations=0"
            )
        return self

    @model_validator(mode="after")
    def _enough_candidates(self) -> Experiment:
        sampler = self.sampler
        if isinstance(sampler, PowerOfChoice):
            least, most = self.asked_size, self.clients
            if not least <= sampler.candidates <= most:
                raise ValueError(
                    f"sampler.candidates must be in [{least}, {most}], from the cohort to all "
                    f"clients, got {sampler.candidates}"
                )
        return self

    @model_validator(mode="after")
    def _somebody(self) -> Experiment:
        if self.cohort_size < 1:
            raise ValueError(
                f"sample_ratio must sample at least one of {self.clients} clients, "
                f"got {self.sample_ratio:g}"
            )
        return self

    @model_validator(mode="after")
    def _somebody_hostile(self) -> Experiment:
        if self.attack is not None and self.hostile_count < 1:
            raise ValueError(
                f"attack.share must make at least one of {self.clients} clients hostile, "
                f"got {self.attack.share:g}"
            )
        return self

    @property
    def hostile_count(self) -> int:
        """Hostile clients: attack.share * clients, rounded to the nearest; 0 without an attack."""
        return 0 if self.attack is None else int(self.attack.share * self.clients + 0.5)

    @property
    def cohort_size(self) -> int:
        """Clients a round: sample_ratio * clients, rounded to the nearest."""
        return int(self.sample_ratio * self.clients + 0.5)

    @property
    def asked_size(self) -> int:
        """Clients that are asked in a round: the cohort, times stragglers.oversample, rounded up."""
        return ceil(self.cohort_size * self.stragglers.oversample - 1e-9)

    @property
    def config_hash(self) -> str:
        """Eight hex digits over what decides the numbers: not engine, checkpoints, results or name.

        Nor data.root, unless the data set is whatever lies there. Of a trace and of an agent that is not
        the shipped one the contents count, not the place.

        Raises:
            ConfigError: such a file cannot be read.
        """
        decisive = self.model_dump(mode="json", exclude=ELSEWHERE)
        if self.data.name not in FROM_ROOT:
            del decisive["data"]["root"]
        if self.devices is not None and self.devices.trace is not None:
            decisive["devices"]["trace"] = contents("devices.trace", self.devices.trace)
        if isinstance(self.availability, Traced):
            decisive["availability"]["file"] = contents("availability.file", self.availability.file)
        agent = self.algorithm.agent if isinstance(self.algorithm, Spatl) else None
        if agent is not None and agent.weights != SHIPPED:
            found = contents("algorithm.agent.weights", agent.weights)
            decisive["algorithm"]["agent"]["weights"] = found
        text = json.dumps(decisive, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def run_id(self) -> str:
        """The run's name in the results: name, algorithm, seed and config hash."""
        algorithm = self.algorithm.name.rpartition(":")[2]
        return f"{self.name}-{algorithm}-s{self.seed}-{self.config_hash}"
