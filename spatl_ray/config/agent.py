"""The selection agent: on clients, and its pre-training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from spatl_ray.config.base import Count, Fraction, NonNegative, Positive, Strict
from spatl_ray.config.data import Data
from spatl_ray.config.training import Model, Training

SHIPPED = "shipped"
"""The agent that comes with the package."""

Samples = Annotated[int, Field(ge=1, le=256)]
"""Validation samples behind a reward: more cost more than they tell."""


class Agent(Strict):
    """The salient parameter selection agent of Yu et al., SC22.

    Attributes:
        weights: `shipped`, or a file that `spatl pretrain-agent` wrote.
        budget: share of the dense network's cost that is kept; a client's `budget_flops` may be less.
        measure: what the cost counts: FLOPs of one sample's inference, or parameters.
        participations: the actor's head is fine-tuned in a client's first so many accepted rounds.
        episodes: of each fine-tuning.
        steps: in which an episode reaches the budget; each is scored once.
        validation_samples: of the client's own validation split, at most, behind a reward.
    """

    weights: str = SHIPPED
    budget: Fraction = 0.6
    measure: Literal["flops", "parameters"] = "flops"
    participations: Annotated[int, Field(ge=0)] = 2
    episodes: Annotated[int, Field(ge=1, le=30)] = 8
    steps: Annotated[int, Field(ge=1, le=10)] = 1
    validation_samples: Samples = 256


class Pretraining(Strict):
    """How an agent is pre-trained: networks are trained, then pruned over and over, in turn.

    Attributes:
        seed: of everything; network i is built, trained and given samples by seed + i.
        data: the data set; neither its test set nor a client takes part.
        model: the network.
        others: further ones, which take turns with it.
        training: of each network; its `epochs` are all that it gets.
        samples: that each network is trained on.
        held_out: further training samples, from which each update's rewards take `reward_samples`.
        reward_samples: behind the rewards of one update.
        updates: of the agent.
        episodes: between two updates.
        steps: of an episode.
        least_budget: budgets are drawn from [least_budget, most_budget], the same for an update's episodes.
        most_budget: see there.
        learning_rate: of Adam, at first; it falls to 0 in a straight line.
        prior: weight of the policy's divergence from equal ratios.
        sigma: standard deviation of the actions that are tried; twice a client's, so that they tell more.
        checkpoint_every: updates between two checkpoints.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data = Data(name="fashion_mnist", options={"pad": 2})
    model: Model = Model(name="resnet56", options={"width": 8})
    others: tuple[Model, ...] = (
        Model(name="vgg16", options={"width": 16, "norm": "batch"}),
        Model(name="resnet56", options={"width": 8}),
        Model(name="vgg16", options={"width": 24, "norm": "batch"}),
        Model(name="resnet32", options={"width": 12}),
        Model(name="resnet32", options={"width": 8}),
    )
    training: Training = Training(epochs=6, lr=0.05, schedule="cosine", weight_decay=5e-4)
    samples: Count = 8_000
    held_out: Count = 5_000
    reward_samples: Count = 128
    updates: Count = 480
    episodes: Count = 16
    steps: Count = 1
    least_budget: Fraction = 0.35
    most_budget: Fraction = 0.9
    learning_rate: Fraction = 1e-3
    prior: NonNegative = 0.05
    sigma: Positive = 1.0
    checkpoint_every: Count = 10

    @field_validator("others", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @property
    def models(self) -> tuple[Model, ...]:
        """All networks, in their turn."""
        return (self.model, *self.others)

    @model_validator(mode="after")
    def _consistent(self) -> Pretraining:
        if self.least_budget > self.most_budget:
            raise ValueError(
                f"least_budget must be at most most_budget {self.most_budget:g}, got "
                f"{self.least_budget:g}"
            )
        if self.training.epochs is None:
            raise ValueError(
                f"training must give epochs, got {self.training.steps} steps: the network is trained for "
                "whole passes"
            )
        if self.training.together > 1:
            raise ValueError(
                f"training.together must be 1, got {self.training.together}: networks are trained one by one"
            )
        if self.reward_samples > self.held_out:
            raise ValueError(
                f"reward_samples must be at most held_out {self.held_out}, got {self.reward_samples}"
            )
        return self
