"""Accuracy and loss of a model on given samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from spatl_ray.arrays import Bits
from spatl_ray.models.flat import FlatModel
from spatl_ray.parameters import ModelVector


@dataclass(frozen=True)
class Score:
    """How well a model does on some samples.

    Attributes:
        correct: number of samples whose largest logit is their label's.
        samples: number of samples.
        loss: mean cross entropy, in nats.
    """

    correct: int
    samples: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of correct samples, in [0, 1]."""
        return self.correct / self.samples


class Validate(Protocol):
    """Scores a model on a client's own validation split; None if that is empty."""

    def __call__(
        self, vector: ModelVector, limit: int | None = None, channels: Bits | None = None
    ) -> Score | None:
        """On the whole split, or on a seeded sample of at most `limit` of it.

        With `channels`, shape (channels of all groups,), the others are removed for inference, and
        batch norm's statistics taken anew of training samples.
        """


@torch.no_grad()
def evaluate(
    model: FlatModel, vector: ModelVector, x: Tensor, y: Tensor, batch_size: int
) -> Score | None:
    """Score `vector` on the samples, in evaluation mode; None if there are none.

    Args:
        model: the module to load it into (it is overwritten).
        vector: the model to evaluate.
        x: samples, shape (n, *shape).
        y: labels, shape (n,).
        batch_size: samples a forward pass.
    """
    if not len(y):
        return None
    model.load(vector)
    model.evaluate()
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    loss = torch.zeros((), dtype=torch.float64, device=x.device)
    for start in range(0, len(y), batch_size):
        labels = y[start : start + batch_size]
        logits = model.module(x[start : start + batch_size])
        correct += (logits.argmax(dim=1) == labels).sum()
        loss += functional.cross_entropy(logits, labels, reduction="sum").double()
    return Score(int(correct), len(y), float(loss) / len(y))
