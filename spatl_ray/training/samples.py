"""Samples of clients, taken from resident tensors batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spatl_ray.training.batches import Rows


@dataclass(frozen=True, eq=False)
class Samples:
    """Some rows of tensors that others share: nothing is copied before a batch is asked for.

    Attributes:
        x: features, shape (m, *shape).
        y: labels, shape (m,).
        rows: which of them, shape (n,); None for all.
    """

    x: Tensor
    y: Tensor
    rows: Rows | None = None

    def __len__(self) -> int:
        return len(self.y) if self.rows is None else len(self.rows)

    def places(self, index: Rows) -> Rows:
        """Rows of the shared tensors, of some samples."""
        return index if self.rows is None else self.rows[index]

    def at(self, places: Rows) -> tuple[Tensor, Tensor]:
        """Features and labels in some rows of the shared tensors."""
        rows = torch.from_numpy(places).to(self.x.device)
        # Not x[rows]: that takes four times as long for a small batch.
        return self.x.index_select(0, rows), self.y.index_select(0, rows)


def batch_of(samples: Sequence[Samples], indices: Sequence[Rows]) -> tuple[Tensor, Tensor]:
    """Batches of several clients, one behind the other: features and labels.

    Args:
        samples: of each client.
        indices: of its batch.
    """
    first = samples[0]
    if len(samples) == 1:
        return first.at(first.places(indices[0]))
    places = [each.places(index) for each, index in zip(samples, indices, strict=True)]
    if all(each.x is first.x and each.y is first.y for each in samples):
        return first.at(np.concatenate(places))
    x, y = zip(*(each.at(own) for each, own in zip(samples, places, strict=True)), strict=True)
    return torch.cat(x), torch.cat(y)
