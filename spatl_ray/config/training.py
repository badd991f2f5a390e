"""Which model, and how it is trained, sent, combined and evaluated."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from spatl_ray.config.base import (
    LATER,
    Count,
    FewBits,
    Fraction,
    NonNegative,
    Options,
    Positive,
    SentType,
    Strict,
    ValueType,
    one_of,
)


class Model(Strict):
    """Which network, and where it is cut into encoder and predictor.

    Attributes:
        name: a built-in one (`spatl list` names them), `torchvision.NAME` for a classifier of
            torchvision, or `package.module:factory` for an own one.
        predictor: names of the submodules that form the predictor; None takes the model's own rule.
        options: keyword arguments of the model, e.g. {"width": 8}.
    """

    name: str = "resnet20"
    predictor: tuple[str, ...] | None = None
    options: Options = {}

    @field_validator("predictor", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Augment(Strict):
    """Random changes of training images, drawn anew for each sample and step.

    Attributes:
        crop: pixels of reflection added at each edge before a random crop of the original size.
        flip: mirror left and right with probability 1/2.
        cutout: side of a square, at a random place, that is set to 0 (DeVries, Taylor, 2017).
    """

    crop: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    cutout: Annotated[int, Field(ge=0)] = 0


class Training(Strict):
    """Local training: stochastic gradient descent on one client.

    Attributes:
        epochs: passes over the client's training samples a round; not with `steps`.
        steps: local steps a round, instead of epochs.
        batch_size: samples a step; the last batch of an epoch may be smaller.
        drop_last: leave such a smaller batch out, unless it is the only one.
        lr: learning rate of round 0.
        schedule: of the learning rate over rounds: constant, cosine (to 0 at the last round) or
            exponential (times `decay` a round).
        decay: factor of the exponential schedule.
        momentum: heavy-ball momentum; it starts at 0 in each round.
        weight_decay: added to the gradient as weight_decay * parameter.
        norm_sparsity: weight of the L1 norm of the normalisations' scales behind prunable layers, in the
            loss: channels that matter little fade during training (Liu et al., ICCV 2017).
        clip_norm: L2 bound on a step's gradient, or None.
        buffers: floating-point buffers (batch norm's running statistics) are averaged or local.
        dtype: of parameters and arithmetic; float64 is for tests.
        precision: `full`, or `bf16`: forward and backward passes of training round to bfloat16 where torch's
            autocast does; parameters, momentum and all sums stay in `dtype`.
        channels_last: training's images lie in memory with channels last.
        compile: torch.compile the network for training; costs seconds to minutes in each worker.
        together: clients whose steps are taken as one batched computation, on models without buffers. It
            changes numbers by rounding only, and is part of the config so that the number of workers
            does not. It pays for small linear models on a CPU; convolutions are slower there.
        loss: `cross_entropy`, or `package.module:function` of (outputs, labels) for an own one.
        augment: random changes of training images, or None.
    """

    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Count = 64
    drop_last: bool = False
    lr: Positive = 0.02
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    decay: Fraction = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 0.0
    norm_sparsity: NonNegative = 0.0
    clip_norm: Positive | None = None
    buffers: Literal["average", "local"] = "average"
    dtype: Literal["float32", "float64"] = "float32"
    precision: Literal["full", "bf16"] = "full"
    channels_last: bool = False
    compile: bool = False
    together: Count = 1
    loss: Annotated[str, one_of("cross_entropy")] = "cross_entropy"
    augment: Augment | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps exclude each other: give one of them")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)
        return self

    @model_validator(mode="after")
    def _one_precision(self) -> Training:
        if self.precision == "bf16" and self.dtype != "float32":
            raise ValueError(f"dtype must be float32 with precision bf16, got {self.dtype}")
        return self


class Aggregation(Strict):
    """How the updates of a round become one.

    Attributes:
        rule: `mean` is summed where the clients run. The others withstand hostile clients, and need every
            update: coordinate-wise `median` and `trimmed_mean`; `krum` takes the update that is nearest to
            others, `multi_krum` the mean of those n - f that are, f = hostile n.
        hostile: share of hostile clients in a cohort that a rule is to withstand: f = hostile n.
            `trimmed_mean` cuts f values off at each end. It and `median` leave positions alone that fewer
            than 2f + 1 sent.
        clip_norm: an update with a larger L2 norm is scaled down to it ("clipped"), or None.
    """

    rule: Literal["mean", "median", "trimmed_mean", "krum", "multi_krum"] = "mean"
    hostile: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    clip_norm: Positive | None = None


class Wire(Strict):
    """Value types on the wire and at rest; a cast to fewer bits is part of the algorithm, what follows is
    lossless.

    Attributes:
        uplink: of updates; None takes the training's dtype. int8 and int4 round stochastically, in blocks
            that have a scale each.
        downlink: of broadcasts; None takes the training's dtype.
        states: of client states between two rounds; None stores them as they are.
        control: of the control variate in broadcasts; None takes `downlink`, or `broadcast` if that is int8
            or int4.
        broadcast: `full`; `changed`: a client receives what changed since it began its last update that
            counted, the values are the same and fewer bytes travel; or int8 or int4: it receives differences
            in so few bits, and what rounding leaves of them comes with the next ones.
        broadcast_keep: share of each layer's channels whose differences are sent, those that differ most; the
            others' come later. Only with broadcast=int8 and int4.

    Buffers always travel in the training's dtype: rounded movements of a running variance can add up
    to a negative one.
    """

    uplink: SentType | None = None
    downlink: ValueType | None = None
    states: ValueType | None = None
    control: Annotated[SentType | None, LATER] = None
    broadcast: Annotated[Literal["full", "changed", "int8", "int4"], LATER] = "full"
    broadcast_keep: Annotated[Fraction, LATER] = 1.0

    @property
    def is_held(self) -> bool:
        """Whether what clients hold follows the server in differences of few bits."""
        return self.broadcast in get_args(FewBits)

    @model_validator(mode="after")
    def _one_downlink(self) -> Wire:
        if self.is_held and self.downlink is not None:
            raise ValueError(
                f"downlink must be null with broadcast={self.broadcast}, which sends differences in as many "
                f"bits, got {self.downlink!r}"
            )
        if self.control is not None and self.is_held != (self.control in get_args(FewBits)):
            rule = "int8 or int4" if self.is_held else "a float type"
            raise ValueError(
                f"control must be {rule} with broadcast={self.broadcast}, got {self.control!r}"
            )
        if self.broadcast_keep < 1 and not self.is_held:
            raise ValueError(
                f"broadcast_keep must be 1 with broadcast={self.broadcast}, as nothing of it is sent later, "
                f"got {self.broadcast_keep:g}"
            )
        return self


class Finetune(Strict):
    """Local fine-tuning before evaluation (Yu, Bagdasaryan, Shmatikov, "Salvaging federated learning by local
    adaptation", 2020).

    Attributes:
        epochs: passes over the client's training samples.
        parts: what is trained: all, or the predictor alone.
        lr: learning rate; None takes that of round 0.
    """

    epochs: Count = 1
    parts: Literal["all", "predictor"] = "all"
    lr: Positive | None = None


class Evaluation(Strict):
    """When, on whom and on how much is evaluated.

    Attributes:
        every: evaluate after every this many rounds, and after the last one.
        panel: number of clients of the fixed, seeded panel.
        global_samples: size of the fixed, seeded sample of the global test set, or None for all.
        client_global_samples: size of the fixed, seeded sample of those on which clients' models are scored,
            the global model apart; None for all of them.
        untrained: clients that never trained are evaluated as they are (`initial`), not at all (`skip`), or
            after fitting a model to their training samples, of which nothing travels or stays: only
            the predictor on the received encoder (`transfer`), all of the received model (`finetune`), or
            all from the run's initial model (`scratch`). With a shared predictor, `transfer` and
            `finetune` start from that.
        transfer_epochs: local epochs of such a fit.
        transfer_lr: its learning rate; None takes that of round 0.
        transfer_share: seeded share of such a client's training samples that it is fitted to, at least one
            sample; smaller shares are parts of larger ones.
        batch_size: samples a forward pass.
        finetune: own splits are scored after fine-tuning a copy of the client's model, of which nothing
            travels or stays; None scores the model as it is, as the global test set always does.
    """

    every: Count = 1
    panel: Count = 100
    global_samples: Count | None = 2000
    client_global_samples: Annotated[Count | None, LATER] = None
    untrained: Literal["initial", "transfer", "finetune", "scratch", "skip"] = "initial"
    transfer_epochs: Count = 1
    transfer_lr: Annotated[Positive | None, LATER] = None
    transfer_share: Annotated[Fraction, LATER] = 1.0
    batch_size: Count = 500
    finetune: Annotated[Finetune | None, LATER] = None
