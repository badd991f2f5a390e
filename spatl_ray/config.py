"""An experiment as data: pydantic models that refuse what cannot run, before anything starts.

One file, though a long one: it is the vocabulary of the whole project, to be read from top to bottom.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from spatl_ray.plugins import is_dotted

Fraction = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
ValueType = Literal["float32", "float16", "bfloat16", "float64"]


class Strict(BaseModel):
    """Base of all config models: frozen, no unknown keys, no silent conversions of text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Split(Strict):
    """How each client's own samples are divided; the three fractions sum to 1."""

    train: Fraction = 0.8
    validation: Share = 0.1
    test: Share = 0.1

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test must be 1, got {total:g}")
        return self


class Data(Strict):
    """Which data set, where its files are, and how much of it is used.

    Attributes:
        name: `digits`, `fashion_mnist`, or `package.module:loader` for an own one.
        root: folder of the files; else SPATL_DATA, ./data, and the system's data folders.
        samples: size of a seeded subset of the training samples, or None for all.
        split: how each client's own samples are divided.
        options: keyword arguments of an own loader.
    """

    name: str = "digits"
    root: str | None = None
    samples: Count | None = None
    split: Split = Split()
    options: dict[str, Any] = {}


class Iid(Strict):
    """A random permutation in equal shares."""

    name: Literal["iid"] = "iid"


class Dirichlet(Strict):
    """Label skew: each class is cut by p ~ Dir(beta) (Li, Diao, Chen, He, ICDE 2022)."""

    name: Literal["dirichlet"] = "dirichlet"
    beta: Positive = 0.5
    min_size: Count = 10


class Classes(Strict):
    """Each client holds samples of k classes (Li, Diao, Chen, He, ICDE 2022)."""

    name: Literal["classes"] = "classes"
    k: Count = 2


Partition = Annotated[Iid | Dirichlet | Classes, Field(discriminator="name")]


class Model(Strict):
    """Which network, and where it is cut into encoder and predictor.

    Attributes:
        name: `mlp`, `lenet`, `resnet20`, or `package.module:factory` for an own one.
        predictor: names of the submodules that form the predictor; None takes the model's own rule.
        options: keyword arguments of the model, e.g. {"width": 8}.
    """

    name: str = "resnet20"
    predictor: tuple[str, ...] | None = None
    options: dict[str, Any] = {}

    @field_validator("predictor", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Training(Strict):
    """Local training: stochastic gradient descent on one client.

    Attributes:
        epochs: passes over the client's training samples a round; not with `steps`.
        steps: local steps a round, instead of epochs.
        batch_size: samples a step; the last batch of an epoch may be smaller.
        lr: learning rate of round 0.
        schedule: of the learning rate over rounds: constant, cosine (to 0 at the last round) or
            exponential (times `decay` a round).
        decay: factor of the exponential schedule.
        momentum: heavy-ball momentum; it starts at 0 in each round.
        weight_decay: added to the gradient as weight_decay * parameter.
        clip_norm: L2 bound on a step's gradient, or None.
        buffers: floating-point buffers (batch norm's running statistics) are averaged or local.
        dtype: of parameters and arithmetic; float64 is for tests.
    """

    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Count = 64
    lr: Positive = 0.02
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    decay: Fraction = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 0.0
    clip_norm: Positive | None = None
    buffers: Literal["average", "local"] = "average"
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps exclude each other: give one of them")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)
        return self


class FedAvg(Strict):
    """FedAvg: McMahan et al., AISTATS 2017."""

    name: Literal["fedavg"] = "fedavg"
    server_lr: Positive = 1.0


class FedProx(Strict):
    """FedProx: Li et al., MLSys 2020; `mu` weighs the proximal term (mu/2)||y - x||^2."""

    name: Literal["fedprox"] = "fedprox"
    mu: NonNegative = 0.01
    server_lr: Positive = 1.0


class FedNova(Strict):
    """FedNova: Wang et al., NeurIPS 2020."""

    name: Literal["fednova"] = "fednova"
    server_lr: Positive = 1.0


class FedPer(Strict):
    """FedPer: Arivazhagan et al., 2019: shared encoder, local predictor, trained together."""

    name: Literal["fedper"] = "fedper"
    server_lr: Positive = 1.0


class LocalOnly(Strict):
    """Each client trains alone: no byte travels."""

    name: Literal["local_only"] = "local_only"


class Control(Strict):
    """Gradient control by control variates (Karimireddy et al., ICML 2020, option II).

    Attributes:
        rate: b in c_i+ = c_i + b (c_i(new) - c_i).
        strength: s, which multiplies the correction c - c_i; below 1 the variate must be sent.
        variate: the server derives the variates' change from the update, or it is sent.
    """

    rate: Fraction = 1.0
    strength: Fraction = 1.0
    variate: Literal["derived", "sent"] = "derived"

    @model_validator(mode="after")
    def _derivable(self) -> Control:
        if self.strength < 1 and self.variate == "derived":
            raise ValueError(
                f"strength must be 1 with variate=derived, got {self.strength:g}: derived, the "
                "variates would grow by 1/strength and undo it; use variate=sent"
            )
        return self


class Scaffold(Strict):
    """SCAFFOLD: Karimireddy et al., ICML 2020."""

    name: Literal["scaffold"] = "scaffold"
    server_lr: Positive = 1.0
    control: Control = Control()


Criterion = Literal["l1", "l2", "update"]


class Inference(Strict):
    """What is kept of the encoder for inference, apart from what travels."""

    keep: Fraction = 0.5
    criterion: Criterion = "l2"


class Spatl(Strict):
    """SPATL: Yu et al., SC22 (arXiv 2111.14345).

    Attributes:
        keep: share of the channels of each prunable encoder layer that travels.
        keep_layers: own shares for layers by name, instead of `keep`.
        criterion: salience of a channel: L1 or L2 norm of its weights, or L2 norm of its update.
        inference: what is kept for inference, if it is to be measured.
        selection: whether salient channels are selected; off, the whole encoder travels.
        transfer: whether the predictor is local; off, the whole model is shared.
        control: whether control variates correct the gradient, and how; None turns them off.
        denominator: a position's sum is divided by the weights of its `senders`, or of the `cohort`.
        error_feedback: what is not sent is kept and added to the client's next update.
        server_lr: factor on the aggregated update.
    """

    name: Literal["spatl"] = "spatl"
    keep: Fraction = 0.5
    keep_layers: dict[str, Fraction] = {}
    criterion: Criterion = "update"
    inference: Inference | None = None
    selection: bool = True
    transfer: bool = True
    control: Control | None = Control()
    denominator: Literal["senders", "cohort"] = "senders"
    error_feedback: bool = False
    server_lr: Positive = 1.0

    @model_validator(mode="after")
    def _feedback(self) -> Spatl:
        if not self.error_feedback:
            return self
        if self.denominator == "senders":
            raise ValueError(
                "denominator must be cohort with error_feedback, got 'senders': it would deliver "
                "the residual of several rounds at full weight"
            )
        if self.control is not None and self.control.variate == "derived":
            raise ValueError(
                "control.variate must be sent with error_feedback, got 'derived': an update that "
                "carries a residual is not one round's movement"
            )
        return self


class OwnAlgorithm(Strict):
    """An own algorithm by dotted name.

    Attributes:
        name: `package.module:Class`.
        options: handed to the class as its `options`.
    """

    name: str
    options: dict[str, Any] = {}


BUILT_IN = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fednova": FedNova,
    "scaffold": Scaffold,
    "spatl": Spatl,
    "fedper": FedPer,
    "local_only": LocalOnly,
}


def _algorithm_tag(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return "own" if is_dotted(name) else str(name)


Algorithm = Annotated[
    Annotated[FedAvg, Tag("fedavg")]
    | Annotated[FedProx, Tag("fedprox")]
    | Annotated[FedNova, Tag("fednova")]
    | Annotated[Scaffold, Tag("scaffold")]
    | Annotated[Spatl, Tag("spatl")]
    | Annotated[FedPer, Tag("fedper")]
    | Annotated[LocalOnly, Tag("local_only")]
    | Annotated[OwnAlgorithm, Tag("own")],
    Discriminator(_algorithm_tag),
]


class Aggregation(Strict):
    """How the updates of a round become one.

    Attributes:
        rule: `mean` is summed where the clients run; `median` (coordinate-wise) needs every update.
        clip_norm: an update with a larger L2 norm is scaled down to it ("clipped"), or None.
    """

    rule: Literal["mean", "median"] = "mean"
    clip_norm: Positive | None = None


class Wire(Strict):
    """Value types on the wire; a cast to fewer bits is part of the algorithm, what follows is lossless.

    Attributes:
        uplink: of updates; None takes the training's dtype.
        downlink: of broadcasts; None takes the training's dtype.

    Buffers always travel in the training's dtype: rounded movements of a running variance can add up
    to a negative one.
    """

    uplink: ValueType | None = None
    downlink: ValueType | None = None


class Evaluation(Strict):
    """When, on whom and on how much is evaluated.

    Attributes:
        every: evaluate after every this many rounds, and after the last one.
        panel: number of clients of the fixed, seeded panel.
        global_samples: size of the fixed, seeded sample of the global test set, or None for all.
        untrained: clients that never trained are evaluated as they are (`initial`), after fitting
            only their predictor (`transfer`), or not at all (`skip`).
        transfer_epochs: local epochs of `transfer`.
        batch_size: samples a forward pass.
    """

    every: Count = 1
    panel: Count = 100
    global_samples: Count | None = 2000
    untrained: Literal["initial", "transfer", "skip"] = "initial"
    transfer_epochs: Count = 1
    batch_size: Count = 500


class Engine(Strict):
    """What runs the clients.

    Attributes:
        backend: `ray`, or `serial` (one process, no Ray: the reference).
        workers: number of ClientActors; None takes one a CPU core (or as many as the GPUs hold).
        num_cpus: CPUs a ClientActor reserves.
        num_gpus: GPUs a ClientActor reserves; a fraction shares one.
        device: to train on; `auto` is cuda if num_gpus is over 0, else cpu.
        allow_mixed: let workers of different CPU capability or software run together, which gives
            up bit-identical results.
        address: of a running Ray cluster, or None to start Ray on this machine.
    """

    backend: Literal["ray", "serial"] = "ray"
    workers: Count | None = None
    num_cpus: NonNegative = 1.0
    num_gpus: NonNegative = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    allow_mixed: bool = False
    address: str | None = None


class Results(Strict):
    """Where the tables go.

    Attributes:
        folder: one folder an experiment; several runs share it.
        overwrite: replace a run of the same id that is already there.
        flush_seconds: rows are written with the first round that ends this long after the last write.
    """

    folder: str = "results"
    overwrite: bool = False
    flush_seconds: NonNegative = 10.0


class Experiment(Strict):
    """One run: everything that decides its numbers, and where it runs.

    Attributes:
        clients: number N of clients.
        sample_ratio: share of the clients in each round's cohort.
        objective: a client's weight p_i in the objective: its share of samples, or 1/N.
    """

    name: str = Field(default="experiment", pattern=r"^[\w.-]+$")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    rounds: Count = 10
    clients: Count = 10
    sample_ratio: Fraction = 1.0
    objective: Literal["samples", "uniform"] = "samples"
    data: Data = Data()
    partition: Partition = Dirichlet()
    model: Model = Model()
    training: Training = Training()
    algorithm: Algorithm = Spatl()
    aggregation: Aggregation = Aggregation()
    wire: Wire = Wire()
    evaluation: Evaluation = Evaluation()
    engine: Engine = Engine()
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
    def _somebody(self) -> Experiment:
        if self.cohort_size < 1:
            raise ValueError(
                f"sample_ratio must sample at least one of {self.clients} clients, "
                f"got {self.sample_ratio:g}"
            )
        return self

    @property
    def cohort_size(self) -> int:
        """Clients a round: sample_ratio * clients, rounded to the nearest."""
        return int(self.sample_ratio * self.clients + 0.5)

    @property
    def config_hash(self) -> str:
        """Eight hex digits over what decides the numbers: not engine, results, name or data.root."""
        decisive = self.model_dump(mode="json", exclude={"engine", "results", "name"})
        del decisive["data"]["root"]
        text = json.dumps(decisive, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def run_id(self) -> str:
        """The run's name in the results: name, algorithm, seed and config hash."""
        algorithm = self.algorithm.name.rpartition(":")[2]
        return f"{self.name}-{algorithm}-s{self.seed}-{self.config_hash}"
