"""A multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from spatl_ray.errors import ModelError
from spatl_ray.options import check_counts


class MLP(nn.Module):
    """Linear-ReLU layers and a linear predictor; `hidden` may be empty (logistic regression).

    Weights begin as PyTorch draws them.

    Args:
        shape: of one sample; it is flattened.
        classes: number of outputs.
        hidden: widths of the hidden layers, which form the encoder.

    Raises:
        ModelError: a width below 1.
    """

    def __init__(
        self, shape: tuple[int, ...], classes: int, hidden: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        for index, width in enumerate(hidden):
            check_counts("model.options", ModelError, **{f"hidden[{index}]": width})
        widths = [math.prod(shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
        self.predictor = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        logits: Tensor = self.predictor(self.encoder(x))
        return logits
