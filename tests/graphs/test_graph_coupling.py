"""Which channels are coupled, by hand; and what must stay, because a smaller network would miss it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flat_models import split_model
from graph_models import case, check_slim, network, own, traced
from torch import Tensor, nn
from torch.nn import functional

from spatl_ray.models.split import PREDICTOR, SplitModel

STAYS = [-1]


@pytest.mark.parametrize("name", ["vgg11", "lenet", "cnn"])
def test_layers_in_a_row_are_coupled_with_nothing(name: str) -> None:
    own = network(name, width=4)
    assert own.coupling.labels.tolist() == list(range(len(own.coupling.labels)))


def test_residual_sums_couple_the_layers_of_a_stage() -> None:
    """Option A puts the 4 channels of stage 1 at 2..5 of the 8 of stage 2, and these at 4..11."""
    own = network("resnet20", width=4)
    one, two, three = (own.labels(f"encoder.{i}.conv2") for i in (3, 6, 9))
    assert own.labels("encoder.0") == one
    for first, labels in ((3, one), (6, two), (9, three)):
        assert all(own.labels(f"encoder.{first + i}.conv2") == labels for i in range(3))
    assert two[2:6] == one
    assert three[4:12] == two
    # 4 a stage's own, 16 of the sums, and each first convolution for itself.
    assert own.coupling.classes == 16 + 3 * (4 + 8 + 16)
    assert own.coupling.labels.min() == 0


def test_a_depthwise_convolution_and_its_gate_follow_their_input() -> None:
    own = case("mobile", {})
    expanded = own.labels("encoder.expand.0")
    assert own.labels("encoder.depthwise.0") == own.labels("encoder.excite") == expanded
    assert own.labels("encoder.project") == own.labels("encoder.stem.0")
    assert own.coupling.classes == 4 + 9 + 3


def test_concatenations_keep_labels_apart() -> None:
    own = case("dense", {})
    assert own.coupling.labels.tolist() == list(range(4 + 3 + 5 + 7))
    (linear,) = (i for i, n in enumerate(own.graph.nodes) if n.module == "encoder.wide")
    channels = [*range(7), *range(7, 12), *range(7)]
    read = own.coupling.tensors[own.graph.nodes[linear].inputs[0]]
    assert read.tolist() == np.repeat(channels, 4).tolist()


def test_the_channels_of_a_norms_group_stay_together() -> None:
    own = case("grouped", {})
    # Groups of 2 and of 3 channels have a common border after each 6.
    assert own.labels("encoder.first") == np.repeat(range(4), 6).tolist()
    assert own.labels("encoder.second") == own.labels("encoder.first")


def layers(**parts: nn.Module) -> dict[str, nn.Module]:
    """A convolution to 4 channels, and another one of them, with parts of their own."""
    return {
        "first": nn.Conv2d(1, 4, 3, padding=1),
        "second": nn.Conv2d(4, 4, 3, padding=1),
        **parts,
    }


def first_labels(forward: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> list[int]:
    """The labels of the first convolution of a written network."""
    return own(forward, 4, **layers(**parts)).labels("encoder.first")


def between(function: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Something between two convolutions."""
    return lambda self, x: self.second(function(self, self.first(x)))


FREE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "leaky relu": lambda self, x: functional.leaky_relu(x, 0.2),
    "tanh method": lambda self, x: x.tanh(),
    "scaled": lambda self, x: 2 * x / 3,
    "negative": lambda self, x: -x.clamp(-1, 1),
    "twice": lambda self, x: x + x,
    "square": lambda self, x: x * x,
    "interpolated": lambda self, x: functional.interpolate(x, scale_factor=2.0),
    "padded": lambda self, x: functional.pad(x, (1, 1, 1, 1)),
    "mirrored": lambda self, x: functional.pad(x, (1, 1, 1, 1), mode="reflect"),
    "a slice": lambda self, x: x[:, :, 1:9:2, :],
    "a mean": lambda self, x: x.mean(3, keepdim=True),
    "squeezed": lambda self, x: x.sum(-1, keepdim=True).squeeze(3).unsqueeze(3),
    "dropout": lambda self, x: functional.dropout2d(x, 0.5, self.training),
    "in place": lambda self, x: functional.relu(x, inplace=True),
    "modules": lambda self, x: self.pad(self.pool(self.act(x))),
    "instance norm": lambda self, x: self.plain(x),
    "masked norm": lambda self, x: self.norm(x),
    "zeros around": lambda self, x: functional.pad(x, (0, 0, 0, 0, 1, 2))[:, :, ::2].relu(),
}
PARTS: dict[str, dict[str, nn.Module]] = {
    "modules": {"act": nn.Hardswish(), "pool": nn.AvgPool2d(2), "pad": nn.ZeroPad2d(1)},
    "instance norm": {"plain": nn.InstanceNorm2d(4)},
    "masked norm": {"norm": nn.BatchNorm2d(4)},
    "zeros around": {"second": nn.Conv2d(7, 4, 3)},
    "bare norm": {"norm": nn.BatchNorm2d(4, affine=False)},
    "late norm": {"norm": nn.BatchNorm2d(4)},
    "a group of all kinds": {
        "norm": nn.GroupNorm(1, 8, affine=False),
        "second": nn.Conv2d(8, 4, 1),
    },
    "layer norm": {"norm": nn.LayerNorm(16)},
    "local response": {"norm": nn.LocalResponseNorm(3)},
    "prelu": {"act": nn.PReLU(4)},
    "padded with ones": {"pad": nn.ConstantPad2d(1, 1.0)},
    "a grouped convolution": {"groups": nn.Conv2d(4, 4, 1, groups=2)},
    "transposed": {"back": nn.ConvTranspose2d(4, 4, 2)},
    "the same layer twice": {"again": nn.Conv2d(4, 4, 1)},
    "half of them": {"second": nn.Conv2d(2, 4, 1)},
}
FIXED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "sigmoid": lambda self, x: torch.sigmoid(x),
    "softplus": lambda self, x: functional.softplus(x),
    "shifted": lambda self, x: x + 1,
    "cosine": lambda self, x: torch.cos(x),
    "bare norm": lambda self, x: self.norm(x),
    "late norm": lambda self, x: self.norm(functional.relu(x)),
    "layer norm": lambda self, x: self.norm(x),
    "local response": lambda self, x: self.norm(x),
    "prelu": lambda self, x: self.act(x),
    "padded with ones": lambda self, x: self.pad(x),
    "functionally so": lambda self, x: functional.pad(x, (1, 1), value=1.0),
    "a grouped convolution": lambda self, x: self.groups(x),
    "transposed": lambda self, x: self.back(x),
    "the same layer twice": lambda self, x: self.again(self.again(x)),
    "half of them": lambda self, x: x[:, :2],
    "softmax": lambda self, x: x.softmax(1),
    "a mean of channels": lambda self, x: x - x.mean(1, keepdim=True),
    "another order": lambda self, x: x.flip(1),
    "axes exchanged": lambda self, x: x.transpose(1, 2).transpose(1, 2),
    "samples padded": lambda self, x: functional.pad(x, (0, 0, 0, 0, 0, 0, 0, 0)),
    "stacked samples": lambda self, x: torch.cat([x, x], 0)[: x.shape[0]],
    "changed while in use": lambda self, x: x.sigmoid_() * 0 + x,
    "changed through a view": lambda self, x: (x.flatten(2).relu_().sum(2), x)[1],
    "changed in a statement": lambda self, x: (x.mul_(2), x)[1],
    "a sum with a sigmoid": lambda self, x: x + torch.sigmoid(x),
    "a group of all kinds": lambda self, x: self.norm(torch.cat([x, torch.sigmoid(x)], 1)),
    "sizes put together": lambda self, x: x.reshape(x.shape[:2] + torch.Size((-1,))).unsqueeze(3),
    "a divisor": lambda self, x: x / (x * x),
}


@pytest.mark.parametrize("name", FREE)
def test_what_keeps_channels_and_their_zeros(name: str) -> None:
    written = own(between(FREE[name]), 4, **layers(**PARTS.get(name, {})))
    assert written.labels("encoder.first") == [0, 1, 2, 3]
    bits = np.ones(len(written.coupling.labels), dtype=np.bool_)
    bits[[0, 3]] = False
    check_slim(written, bits, 1e-10)


@pytest.mark.parametrize(("size", "labels"), [
    (lambda x: x.shape[2], [0, 1, 2, 3]),
    (lambda x: x.size(-1), [0, 1, 2, 3]),
    (lambda x: x.dim(), [0, 1, 2, 3]),
    (lambda x: x.shape[1], 4 * STAYS),
    (lambda x: x.size(-3), 4 * STAYS),
    (lambda x: x.size()[1], 4 * STAYS),
    (lambda x: x.shape.numel(), 4 * STAYS),
    (lambda x: x.numel(), 4 * STAYS),
])  # fmt: skip
def test_channels_stay_where_their_number_is_asked_for(
    size: Callable[[Tensor], Any], labels: list[int]
) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x) / size(x)

    assert first_labels(forward) == labels


@pytest.mark.parametrize("name", FIXED)
def test_what_a_smaller_network_would_miss_must_stay(name: str) -> None:
    assert first_labels(between(FIXED[name]), **PARTS.get(name, {})) == 4 * STAYS


def test_pooling_over_channels_is_told_from_pooling_over_positions() -> None:
    def rows(self: Any, x: Tensor) -> Tensor:
        return functional.avg_pool1d(self.first(x).flatten(2), 3).mean(2)

    def channels(self: Any, x: Tensor) -> Tensor:
        # Without samples, as torch reads three dimensions here: a window of 3 channels.
        return functional.avg_pool2d(self.first(x).flatten(2), (3, 1), 1, (1, 0)).mean(2)

    assert first_labels(rows) == [0, 1, 2, 3]
    assert first_labels(channels) == 4 * STAYS


def test_a_gate_may_be_anything_where_its_channel_is_0() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x) * torch.sigmoid(x)

    two = own(forward, 4, **layers())
    # The product is 0 with its first factor; but the second layer reads x itself, which is 0 too.
    assert two.labels("encoder.first") == two.labels("encoder.second") == [0, 1, 2, 3]


def test_two_gates_without_a_zero_stay() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.sigmoid(self.second(x)) * torch.sigmoid(x)

    two = own(forward, 4, **layers())
    assert two.labels("encoder.first") == two.labels("encoder.second") == 4 * STAYS


def test_sums_with_the_input_stay() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.second(self.first(x) + functional.pad(x, (0, 0, 0, 0, 1, 2)))

    # Padded zeros are in the class of what they are added to; the data's channel stays.
    assert first_labels(forward) == [0, -1, 1, 2]


def test_what_the_network_gives_stays() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.predictor = module, nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.predictor(self.encoder(x))

    case = traced(SplitModel(Logits().double(), {"predictor": PREDICTOR}), (1, 16, 16))
    assert case.labels("encoder.0") == [0, 1, 2, 3]
    assert case.labels("encoder.3") == 10 * STAYS


def test_linear_layers_over_sequences_stay() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.second(functional.relu(self.first(x.flatten(2)))).mean(1)

    parts = {"first": nn.Linear(256, 5), "second": nn.Linear(5, 4)}
    assert own(forward, 4, **parts).labels("encoder.first") == 5 * STAYS


@pytest.mark.parametrize(
    "name", ["Functional", "OneNormForTwo", "TiedInside", "Transposed", "Scaled", "Grouped", "Rows"]
)
def test_layers_that_are_tied_shared_or_unknown_stay(name: str) -> None:
    shape = (1, 2, 2) if name == "TiedInside" else (1, 16, 16)
    assert (network(name, shape).coupling.labels == -1).all()


def test_a_hook_may_change_anything() -> None:
    split = split_model("lenet", dtype=torch.float64)
    split.module.encoder[3].register_forward_hook(lambda module, args, output: output + 1)
    case = traced(split, (1, 16, 16))
    assert (case.coupling.labels == -1).all()
