"""LeNet as federated learning uses it (LeCun et al., Proc. IEEE 1998; Li et al., ICDE 2022)."""

from __future__ import annotations

from torch import Tensor, nn

from spatl_ray.errors import ModelError
from spatl_ray.models.norm import Norm, check_norm, convolution
from spatl_ray.models.options import check_images
from spatl_ray.options import check_counts


class LeNet(nn.Module):
    """Two 5x5 convolutions (6, 16) with max pooling, then 120-84-classes.

    62,006 parameters for 3x32x32 and 44,426 for 1x28x28 with ten classes. The convolutions are
    the encoder; the three linear layers are the predictor. Weights begin as PyTorch draws them.

    Args:
        shape: (channels, height, width), height and width at least 16.
        classes: number of outputs.
        width: channels of the first convolution; all hidden layers scale with it.
        norm: batch, group or no normalisation behind each convolution.

    Raises:
        ModelError: samples or an option that do not fit.
    """

    def __init__(
        self, shape: tuple[int, ...], classes: int, width: int = 6, norm: Norm = "none"
    ) -> None:
        super().__init__()
        check_images("lenet", shape, 16)
        check_counts("model.options", ModelError, width=width)
        check_norm(norm)
        first, second, third, fourth = ((width * n + 3) // 6 for n in (6, 16, 120, 84))
        height, width = (((side - 4) // 2 - 4) // 2 for side in shape[1:])
        # ReLU behind the pooling gives the same values as before it, on a quarter of the positions.
        self.encoder = nn.Sequential(
            *convolution(shape[0], first, 5, norm), nn.MaxPool2d(2), nn.ReLU(),
            *convolution(first, second, 5, norm), nn.MaxPool2d(2), nn.ReLU(),
        )  # fmt: skip
        self.predictor = nn.Sequential(
            nn.Flatten(),
            nn.Linear(second * height * width, third), nn.ReLU(),
            nn.Linear(third, fourth), nn.ReLU(),
            nn.Linear(fourth, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        logits: Tensor = self.predictor(self.encoder(x))
        return logits
