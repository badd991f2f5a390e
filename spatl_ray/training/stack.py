"""The vectors of models that are trained at once, a row a client, and one step of SGD on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

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
        trained: views of the ranges that are trained, of the three.
    """

    parameters: Tensor
    gradient: Tensor
    velocity: Tensor
    offset: Tensor | None
    mu: float
    anchor: Tensor | None

    trained: Sequence[tuple[Tensor, Tensor, Tensor]] = ()

    def of_first(self, count: int, spans: Sequence[slice]) -> Stack:
        """The first models, of which some ranges are trained."""
        whole = count == len(self.parameters)
        if whole and list(spans) == [slice(0, self.parameters.shape[1])]:
            return replace(self, trained=[(self.parameters, self.gradient, self.velocity)])
        parameters, gradient, velocity = (
            rows[:count] for rows in (self.parameters, self.gradient, self.velocity)
        )
        return Stack(
            parameters,
            gradient,
            velocity,
            None if self.offset is None else self.offset[:count],
            self.mu,
            None if self.anchor is None else self.anchor[:count],
            [(parameters[:, s], gradient[:, s], velocity[:, s]) for s in spans],
        )

    def step(self, training: Training, scales: Tensor | None, lr: float) -> None:
        """One step of SGD with momentum; the vectors ask for no gradient.

        Args:
            training: clipping, decay, sparsity, momentum.
            scales: positions that norm sparsity draws to 0, or None.
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
        for own, slope, moved in self.trained:
            own.sub_(moved.mul_(training.momentum).add_(slope), alpha=lr)

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
        self._part_steps = [dict.fromkeys(parts, 0) for _ in range(count)]

    def add(self, losses: Tensor, sizes: Sequence[int]) -> None:
        """A step of the first clients.

        Args:
            losses: mean loss of each batch, before the step; of a single client, a scalar.
            sizes: its samples.
        """
        self._losses.append(losses)
        self._sizes.append(sizes)

    def end_phase(self, trains: Callable[[str], bool]) -> None:
        """What was added since the last call was one phase, in which some parts were trained."""
        since = self._sizes[self._before :]
        for client, own in enumerate(self._part_steps):
            steps = sum(len(sizes) > client for sizes in since)
            for part in filter(trains, own):
                own[part] += steps
        self._before = len(self._sizes)

    def told(self) -> list[tuple[int, Mapping[str, int], int, float]]:
        """Of each client: steps, those in which each part was trained, samples, mean loss over them.

        The mean is taken in float64; NaN without steps.
        """
        numbers = self._numbers()
        found: list[tuple[int, Mapping[str, int], int, float]] = []
        for client, part_steps in enumerate(self._part_steps):
            own = [
                (losses[client], sizes[client])
                for losses, sizes in zip(numbers, self._sizes, strict=True)
                if len(sizes) > client
            ]
            samples = sum(size for _, size in own)
            loss = sum(loss * size for loss, size in own) / samples if samples else math.nan
            found.append((len(own), part_steps, samples, loss))
        return found

    def _numbers(self) -> list[list[float]]:
        """The losses of each step, read from the device at once."""
        if not self._losses:
            return []
        together = torch.cat([losses.reshape(-1) for losses in self._losses]).tolist()
        ends = accumulate(map(len, self._sizes), initial=0)
        return [together[start:end] for start, end in pairwise(ends)]
