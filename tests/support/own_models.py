"""Own networks, good ones and broken ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

Shape = tuple[int, ...]


class Net(nn.Module):
    """Encoder, then global pooling of images, then predictor."""

    encoder: nn.Module
    predictor: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        logits: Tensor = self.predictor(features.flatten(2).mean(2) if x.dim() == 4 else features)
        return logits


class Functional(nn.Module):
    """A module between functional calls: only `first` and `norm` belong together."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(shape[0], 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.kernel = nn.Parameter(torch.randn(4, 5, 3, 3) / 5)
        self.scale = nn.Parameter(torch.ones(4))
        self.last = nn.Conv2d(4, 4, 1)
        self.behind_relu = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)
        self.predictor_modules: tuple[str, ...] | str = ("head",)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.first(x)))
        x = functional.conv2d(x, self.kernel) * self.scale[:, None, None]
        x = self.behind_relu(functional.relu(self.last(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class InPlaceShortcut(Net):
    """The norm sees the convolution's output tensor after a shortcut was added in place."""

    class Block(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)
            self.norm = nn.BatchNorm2d(channels)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            y += x
            normed: Tensor = self.norm(y)
            return normed

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.encoder = self.Block(shape[0])
        self.predictor = nn.Linear(shape[0], classes)


class OneNormForTwo(Net):
    """One norm behind two convolutions."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(4)
        self.encoder = nn.Sequential(nn.Conv2d(shape[0], 4, 3), norm, nn.Conv2d(4, 4, 3), norm)
        self.predictor = nn.Linear(4, classes)


class ScaledConv(nn.Conv2d):
    """A convolution with a gain for all channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)
        self.gain = nn.Parameter(torch.ones(()))
        self.padding_value = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.padding_value.sum()) * self.gain


class Scaled(Net):
    """A layer with parameters of other shapes than one row a channel."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(ScaledConv(shape[0], 4), nn.BatchNorm2d(4))
        self.predictor = nn.Linear(4, classes)


class Transposed(Net):
    """A transposed convolution, whose weight's rows are its inputs, behind a convolution."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.ConvTranspose2d(4, 4, 3))
        self.predictor = nn.Linear(4, classes)


class Parametrised(Net):
    """A convolution whose weight is computed."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        conv = parametrizations.weight_norm(nn.Conv2d(shape[0], 4, 3))
        self.encoder = nn.Sequential(conv, nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3))
        self.predictor = nn.Linear(6, classes)


class Grouped(Net):
    """A depthwise, a grouped and a transposed convolution."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(shape[0], 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, stride=2, groups=8),
            nn.Conv2d(8, 12, 1, groups=4),
            nn.ConvTranspose2d(12, 6, 2, groups=2),
        )
        self.predictor = nn.Linear(6, classes)


class Rows(nn.Module):
    """An image read row by row, in both directions: a recurrent layer of any kind over real features."""

    def __init__(self, shape: Shape, classes: int, kind: str = "LSTM", **options: Any) -> None:
        super().__init__()
        wide = math.prod(shape) // shape[-2]
        self.encoder = getattr(nn, kind)(wide, 5, batch_first=True, bidirectional=True, **options)
        self.predictor = nn.LazyLinear(classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2).flatten(2)
        logits: Tensor = self.predictor(self.encoder(rows)[0].mean(1))
        return logits


class ComputedGates(Rows):
    """A recurrent layer of which one weight is computed."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes, num_layers=2)
        parametrizations.weight_norm(self.encoder, "weight_hh_l0")


class Words(nn.Module):
    """A mean of embeddings, for as many token ids as the data has."""

    def __init__(self, shape: Shape, classes: int, vocabulary: int = 3) -> None:
        super().__init__()
        self.encoder = nn.EmbeddingBag(vocabulary, 4)
        self.predictor = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.predictor(self.encoder(x))
        return logits


class TiedInside(Net):
    """Two layers of the encoder with one weight, each with its own bias."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        wide = math.prod(shape)
        first, second = nn.Linear(wide, wide), nn.Linear(wide, wide)
        second.weight = first.weight
        self.encoder = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)
        self.predictor = nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.predictor(self.encoder(x))
        return logits


class TiedAcross(nn.Module):
    """The predictor's weight is the encoder's."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(math.prod(shape), classes)
        self.predictor = nn.Linear(math.prod(shape), classes)
        self.predictor.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.encoder(x.flatten(1)) + self.predictor(x.flatten(1))
        return logits


class Lazy(nn.Module):
    """Layers that draw their weights at the first forward pass."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.LazyConv2d(3, 3), nn.Flatten())
        self.predictor = nn.LazyLinear(classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.predictor(self.encoder(x))
        return logits


class Cumulative(Net):
    """Batch norm that averages over all batches so far: its counter decides its statistics."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.BatchNorm2d(4, momentum=None))
        self.predictor = nn.Linear(4, classes)


class Replacing(nn.Module):
    """A running mean that is replaced by a new tensor at each step, and registered twice."""

    mean: Tensor

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(math.prod(shape)))
        self.encoder = nn.Linear(math.prod(shape), 4)
        self.encoder.register_buffer("same_mean", self.mean)
        self.predictor = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        logits: Tensor = self.predictor(self.encoder(x - self.mean))
        return logits


class DropBlock(nn.Module):
    """Dropout by a functional call, in a module that has children."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.linear(x.flatten(1)), 0.5, self.training)


class Dropping(nn.Module):
    """Functional dropout in the encoder and in the predictor."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(DropBlock(math.prod(shape), 8))
        self.predictor = nn.Sequential(DropBlock(8, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.predictor(self.encoder(x))
        return logits


class NoPredictor(Functional):
    """No module that is called, or declared to be, the predictor."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        del self.predictor_modules


class DeclaresOneName(Functional):
    """The predictor declared as a name instead of a tuple of names."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.predictor_modules = "head"


class EmptyPredictor(nn.Module):
    """A predictor without parameters."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
        self.predictor = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.predictor(self.encoder(x))
        return logits


class Frozen(Net):
    """A parameter that the module itself does not train."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(shape[0], 4, 3)
        self.encoder.bias.requires_grad_(False)
        self.predictor = nn.Linear(4, classes)


def one_class_short(shape: Shape, classes: int) -> nn.Module:
    """Logits for one class less than there are."""
    return Functional(shape, classes - 1)


def two_outputs(shape: Shape, classes: int) -> nn.Module:
    """A module that gives a tuple."""

    class Pair(Functional):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), x

    return Pair(shape, classes)


def no_module(shape: Shape, classes: int) -> str:
    """Something else than a module."""
    return "network"


def breaks(shape: Shape, classes: int, temperature: float = 1.0) -> nn.Module:
    """A factory that refuses its options."""
    raise ValueError(f"temperature {temperature} is too hot")


class Hiding(nn.Module):
    """Keeps a second reference to a weight, and uses that one."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(math.prod(shape), 12)
        self.predictor = nn.Linear(12, classes)
        self.hidden = [self.encoder.weight]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.predictor(torch.relu(x.flatten(1) @ self.hidden[0].T))
        return logits


class BatchMean(nn.Module):
    """Features less their mean over the batch."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(math.prod(shape), 12)
        self.predictor = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x.flatten(1))
        logits: Tensor = self.predictor(torch.relu(features - features.mean(0)))
        return logits


class Untracked(BatchMean):
    """Batch norm without running statistics, so without buffers."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__(shape, classes)
        self.norm = nn.BatchNorm1d(12, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.predictor(torch.relu(self.norm(self.encoder(x.flatten(1)))))
        return logits


class Switching(nn.Module):
    """Leaves its dropout switched off when it sees a single sample."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 12), nn.Dropout(0.5))
        self.predictor = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            self.encoder[2].eval()
        logits: Tensor = self.predictor(self.encoder(x))
        return logits
