"""LeNet as federated learning uses it (LeCun et al., Proc. IEEE 1998; Li et al., ICDE 2022)."""

from __future__ import annotations

from torch import Tensor, nn

from spatl_ray.errors import ModelError


class LeNet(nn.Module):
    """Two 5x5 convolutions (6, 16) with max pooling, then 120-84-classes.

    62,006 parameters for 3x32x32 and 44,426 for 1x28x28 with ten classes. The convolutions are
    the encoder; the three linear layers are the predictor.

    Args:
        shape: (channels, height, width), height and width at least 16.
        classes: number of outputs.
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 16:
            raise ModelError(
                f"lenet needs images of at least 16x16 as (channels, h, w), got {shape}"
            )
        height, width = (((side - 4) // 2 - 4) // 2 for side in shape[1:])
        # ReLU behind the pooling gives the same values as before it, on a quarter of the positions.
        self.encoder = nn.Sequential(
            nn.Conv2d(shape[0], 6, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(),
        )  # fmt: skip
        self.predictor = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * height * width, 120), nn.ReLU(),
            nn.Linear(120, 84), nn.ReLU(),
            nn.Linear(84, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        logits: Tensor = self.predictor(self.encoder(x))
        return logits
