"""The vectors of models that are trained at once, a row a client, and one step of SGD on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from spatl_ray.arrays import Doubles
from spatl_ray.config import Training
from spatl_ray.parameters import Array, ModelVector


@dataclass(frozen=True, eq=False)
class Stack:
    """Parameters, gradients and velocities of k models, and the corrections of their gradients.

    Attributes:
        parameters, gradient, velocity: shape (k, P).
        offset: added to the first positions of the gradient, shape (k, n), or None.
        mu: weight of the proximal term.
        anchor: its centre, shape (k, n), or None.
    """

    parameters: Tensor
    gradient: Tensor
    velocity: Tensor
    offset: Tensor | None
    mu: float
    anchor: Tensor | None

    def of_first(self, count: int) -> Stack:
        """Views of the first models."""
        if count == len(self.parameters):
            return self
        return replace(
            self,
            parameters=self.parameters[:count],
            gradient=self.gradient[:count],
            velocity=self.velocity[:count],
            offset=None if self.offset is None else self.offset[:count],
            anchor=None if self.anchor is None else self.anchor[:count],
        )

    def step(
        self, training: Training, scales: Tensor | None, spans: Sequence[slice], lr: float
    ) -> None:
        """One step of SGD with momentum; the vectors ask for no gradient.

        Args:
            training: clipping, decay, sparsity, momentum.
            scales: positions that norm sparsity draws to 0, or None.
            spans: ranges of the vector that are trained.
            lr: learning rate.
        """
        parameters, gradient = self.parameters, self.gradient
        if training.clip_norm is not None:
            norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
            gradient.mul_((training.clip_norm / (norm + 1e-12)).clamp(max=1.0))
        if training.weight_decay:
            gradient.add_(parameters, alpha=training.weight_decay)
        if scales is not None:
            signs = parameters[:, scales].sign_()
            gradient.index_add_(1, scales, signs, alpha=training.norm_sparsity)
        self._correct()
        for span in spans:
            moved = self.velocity[:, span].mul_(training.momentum).add_(gradient[:, span])
            parameters[:, span].sub_(moved, alpha=lr)

    def _correct(self) -> None:
        """gradient += offset + mu (parameters - anchor), on the first positions."""
        if self.offset is not None:
            self.gradient[:, : self.offset.shape[1]].add_(self.offset)
        if self.anchor is not None:
            n = self.anchor.shape[1]
            self.gradient[:, :n].add_(self.parameters[:, :n] - self.anchor, alpha=self.mu)

    def read(self) -> list[ModelVector]:
        """Copies of the models' values; they have no buffers."""
        none = np.zeros(0, dtype=self.parameters.cpu().numpy().dtype)
        return [ModelVector(row.copy(), none) for row in self.parameters.cpu().numpy()]


def stacked(rows: Sequence[Array], like: Tensor) -> Tensor:
    """Rows as one tensor of a vector's type, on its device, shape (k, n)."""
    return torch.tensor(np.stack(rows), dtype=like.dtype, device=like.device)


class Tally:
    """Losses and steps of k clients, step by step.

    Args:
        count: k.
        parts: names of the model's parts.
    """

    def __init__(self, count: int, parts: Iterable[str]) -> None:
        self._count = count
        self._losses: list[Tensor] = []
        self._sizes: list[Sequence[int]] = []
        self._before = 0
        self._part_steps = dict.fromkeys(parts, np.zeros(count, np.int64))

    def add(self, losses: Tensor, sizes: Sequence[int]) -> None:
        """A step of the first clients.

        Args:
            losses: mean loss of each batch, before the step.
            sizes: its samples.
        """
        self._losses.append(losses)
        self._sizes.append(sizes)

    def end_phase(self, trains: Callable[[str], bool]) -> None:
        """What was added since the last call was one phase, in which some parts were trained."""
        steps = np.count_nonzero(self._table(self._sizes[self._before :]), axis=0)
        for part in filter(trains, self._part_steps):
            self._part_steps[part] = self._part_steps[part] + steps
        self._before = len(self._sizes)

    def told(self) -> list[tuple[int, Mapping[str, int], int, float]]:
        """Of each client: steps, those in which each part was trained, samples, mean loss over them.

        The mean is taken in float64; NaN without steps.
        """
        sizes = self._table(self._sizes)
        losses = self._table([row.tolist() for row in self._losses])
        steps, samples = np.count_nonzero(sizes, axis=0).tolist(), sizes.sum(axis=0).tolist()
        totals = (losses * sizes).sum(axis=0).tolist()
        return [
            (
                steps[i],
                {part: int(own[i]) for part, own in self._part_steps.items()},
                int(samples[i]),
                totals[i] / samples[i] if samples[i] else float("nan"),
            )
            for i in range(self._count)
        ]

    def _table(self, rows: Sequence[Sequence[float]]) -> Doubles:
        """Rows of numbers of the first clients, 0 for the others, shape (rows, k)."""
        table = np.zeros((len(rows), self._count))
        for own, row in zip(table, rows, strict=True):
            own[: len(row)] = row
        return table
