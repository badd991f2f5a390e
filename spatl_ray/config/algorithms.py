"""The algorithms and their settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Tag, model_validator

from spatl_ray.config.agent import Agent
from spatl_ray.config.base import (
    LATER,
    Count,
    Fraction,
    NonNegative,
    Own,
    Positive,
    Strict,
    one_of,
    tag,
)


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
    """FedPer: Arivazhagan et al., 2019: shared encoder, local predictor, trained together.

    Attributes:
        server_lr: factor on the aggregated update.
        shared_predictor: whether a second predictor is trained beside the local one and averaged: with the
            encoder, it is the global model.
        shared_trains_encoder: whether the encoder learns from that one's loss, too: from the sum.
    """

    name: Literal["fedper"] = "fedper"
    server_lr: Positive = 1.0
    shared_predictor: Annotated[bool, LATER] = False
    shared_trains_encoder: Annotated[bool, LATER] = False


class FedRep(Strict):
    """FedRep: Collins et al., ICML 2021: shared body, local head, trained one after the other.

    Attributes:
        head_epochs: passes in which the head alone is trained; the body's are `training.epochs` (or `steps`).
    """

    name: Literal["fedrep"] = "fedrep"
    head_epochs: Count = 10
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


Criterion = Annotated[str, one_of("l1", "l2", "update", "mixed", "random", "taylor", "norm_scale")]


class Inference(Strict):
    """What is kept of the encoder for inference, apart from what travels.

    Attributes:
        keep: share of the channels of each prunable layer.
        flops: share of the dense network's FLOPs, instead of `keep`.
        criterion: salience of a channel.
    """

    keep: Fraction = 0.5
    flops: Fraction | None = None
    criterion: Criterion = "l2"


class KeepSchedule(Strict):
    """Keep ratios that change over the first rounds and stay from then on.

    Attributes:
        start: every layer's ratio in round 0.
        rounds: the round from which the ratios are `keep` and `keep_layers`.
        shape: the way there: `linear`, half a `cosine`, or `exponential` (the same factor a round).
    """

    start: Fraction = 1.0
    rounds: Count
    shape: Literal["linear", "cosine", "exponential"] = "linear"


class Spatl(Strict):
    """SPATL: Yu et al., SC22 (arXiv 2111.14345).

    Attributes:
        keep: share of the channels of each prunable encoder layer that travels.
        keep_layers: own shares for layers by name, instead of `keep`.
        criterion: salience of a channel: `l1` or `l2` norm of its weights, L2 norm of its `update`, geometric
            mean of the last two (`mixed`), first-order effect on the loss (`taylor`), scale of the
            normalisation behind it (`norm_scale`), or `random`; `package.module:function` for an own one.
        allocation: `layer`, each layer keeps the same share; or `global`, channels of all layers compete.
        agent: the selection agent, which gives each layer its own share of what travels and of what is
            kept for inference, instead of `keep`, `keep_layers` and `allocation`.
        inference: what is kept for inference, if it is to be measured; of an agent's only the criterion.
        selection: whether salient channels are selected; off, the whole encoder travels.
        transfer: whether the predictor is local; off, the whole model is shared.
        control: whether control variates correct the gradient, and how; None turns them off.
        denominator: a position's sum is divided by the weights of its `senders`, or of the `cohort`.
        buffers: batch norm's statistics travel `whole`, which costs two values a channel; or with the
            `selected` channels only, whose inputs come from channels that moved on without them.
        error_feedback: what is not sent is kept and added to the client's next update.
        server_lr: factor on the aggregated update.
        shared_predictor: whether a second predictor is trained beside the local one and travels with the
            encoder: both together are the global model.
        shared_trains_encoder: whether the encoder learns from that one's loss, too: from the sum.
        keep_schedule: how the keep ratios of what travels come to `keep`; None keeps them as they are.
        mask_every: k: a client selects what travels in every k-th of its rounds that count, and repeats its
            mask in between, which then costs no bytes.
    """

    name: Literal["spatl"] = "spatl"
    keep: Fraction = 0.5
    keep_layers: dict[str, Fraction] = {}
    criterion: Criterion = "update"
    allocation: Literal["layer", "global"] = "layer"
    agent: Agent | None = None
    inference: Inference | None = None
    selection: bool = True
    transfer: bool = True
    control: Control | None = Control()
    denominator: Literal["senders", "cohort"] = "senders"
    buffers: Literal["whole", "selected"] = "whole"
    error_feedback: bool = False
    server_lr: Positive = 1.0
    shared_predictor: Annotated[bool, LATER] = False
    shared_trains_encoder: Annotated[bool, LATER] = False
    keep_schedule: Annotated[KeepSchedule | None, LATER] = None
    mask_every: Annotated[Count, LATER] = 1

    @property
    def keeps_for_inference(self) -> bool:
        """Whether it is decided which channels are kept for inference."""
        return self.selection and (self.agent is not None or self.inference is not None)

    @model_validator(mode="after")
    def _one_policy(self) -> Spatl:
        """What an agent decides cannot be given beside it; a recorded config says every default."""
        if self.agent is None:
            if self.allocation == "global" and self.keep_layers:
                raise ValueError(
                    "keep_layers must be empty with allocation=global, which lets layers compete, got "
                    f"{len(self.keep_layers)} layers"
                )
            return self
        if not self.selection:
            raise ValueError("selection must be true with agent, got false")
        defaults = type(self).model_fields
        for name in ("keep", "keep_layers", "allocation", "keep_schedule"):
            if getattr(self, name) != defaults[name].default:
                raise ValueError(
                    f"{name} must be left out with agent, which decides on it, got {getattr(self, name)!r}"
                )
        if self.inference is not None and self.inference != Inference(
            criterion=self.inference.criterion
        ):
            raise ValueError(
                "inference.keep and inference.flops must be left out with agent, whose budget says "
                f"what is kept, got keep={self.inference.keep:g}, flops={self.inference.flops}"
            )
        return self

    @model_validator(mode="after")
    def _something_is_selected(self) -> Spatl:
        defaults = type(self).model_fields
        for name in ("keep_schedule", "mask_every"):
            value = getattr(self, name)
            if not self.selection and value != defaults[name].default:
                raise ValueError(f"{name} must be left out without selection, got {value!r}")
        return self

    @model_validator(mode="after")
    def _second_predictor(self) -> Spatl:
        if self.shared_predictor and not self.transfer:
            raise ValueError(
                "shared_predictor must be false without transfer, whose predictor is shared already, got true"
            )
        return self

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


class OwnAlgorithm(Own):
    """An own algorithm by dotted name; its `options` are handed to the class."""


BUILT_IN = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fednova": FedNova,
    "scaffold": Scaffold,
    "spatl": Spatl,
    "fedper": FedPer,
    "fedrep": FedRep,
    "local_only": LocalOnly,
}


Algorithm = Annotated[
    Annotated[FedAvg, Tag("fedavg")]
    | Annotated[FedProx, Tag("fedprox")]
    | Annotated[FedNova, Tag("fednova")]
    | Annotated[Scaffold, Tag("scaffold")]
    | Annotated[Spatl, Tag("spatl")]
    | Annotated[FedPer, Tag("fedper")]
    | Annotated[FedRep, Tag("fedrep")]
    | Annotated[LocalOnly, Tag("local_only")]
    | Annotated[OwnAlgorithm, Tag("own")],
    Discriminator(tag),
]
