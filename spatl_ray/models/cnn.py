"""The convolutional network of FedAvg, as FEMNIST is trained with.

References:
    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    AISTATS 2017, section 3; Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018.
"""

from __future__ import annotations

from torch import Tensor, nn

from spatl_ray.errors import ModelError
from spatl_ray.models.norm import Norm, check_norm, convolution
from spatl_ray.models.options import check_images
from spatl_ray.options import check_counts


class CNN(nn.Module):
    """Two 5x5 convolutions (32, 64), each with ReLU and 2x2 max pooling, then 512-classes.

    1,663,370 parameters for 1x28x28 and ten classes, as published; LEAF has 2048 hidden units. The
    convolutions and the hidden layer are the encoder (a representation that clients share), the
    last linear layer is the predictor. Weights begin as PyTorch draws them.

    Args:
        shape: (channels, height, width), height and width at least 4.
        classes: number of outputs.
        width: channels of the first convolution; the second has twice as many.
        hidden: units of the hidden layer.
        norm: batch, group or no normalisation behind each convolution.

    Raises:
        ModelError: samples or an option that do not fit.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        width: int = 32,
        hidden: int = 512,
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        check_images("cnn", shape, 4)
        check_counts("model.options", ModelError, width=width, hidden=hidden)
        check_norm(norm)
        positions = (shape[1] // 4) * (shape[2] // 4)
        self.encoder = nn.Sequential(
            *convolution(shape[0], width, 5, norm, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            *convolution(width, 2 * width, 5, norm, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(2 * width * positions, hidden), nn.ReLU(),
        )  # fmt: skip
        self.predictor = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        logits: Tensor = self.predictor(self.encoder(x))
        return logits
