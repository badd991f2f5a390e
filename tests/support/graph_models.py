"""Networks for tests of graphs, traced and coupled, with values that hide no mistake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from flat_models import split_model
from torch import Tensor, nn
from torch.nn import functional

from spatl_ray import seeding
from spatl_ray.arrays import Bits
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.graphs.coupling import Coupling, couple
from spatl_ray.graphs.graph import Graph
from spatl_ray.graphs.slim import slim
from spatl_ray.graphs.trace import trace
from spatl_ray.models.coupling import channel_groups
from spatl_ray.models.flat import FlatModel, make_layout
from spatl_ray.models.split import PREDICTOR, SplitModel

SHAPE = (1, 16, 16)
CLASSES = 10
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True, eq=False)
class Traced:
    """A network over flat vectors, its graph and its coupling."""

    model: FlatModel
    spec: SampleSpec
    graph: Graph
    coupling: Coupling

    def labels(self, layer: str) -> list[int]:
        """The labels of a layer's channels."""
        (group,) = (g for g in self.graph.groups if g.name == layer)
        own = self.coupling.labels[group.offset : group.offset + group.channels]
        return own.tolist()

    def samples(self, count: int, seed: int = 0) -> Tensor:
        """Samples of random values, or token ids."""
        generator = torch.Generator().manual_seed(seed)
        if self.spec.vocabulary is not None:
            return torch.randint(
                self.spec.vocabulary, (count, *self.spec.shape), generator=generator
            )
        dtype = self.model.parameters.dtype
        return torch.randn(count, *self.spec.shape, generator=generator, dtype=dtype)


def traced(split: SplitModel, shape: tuple[int, ...], token_ids: int | None = None) -> Traced:
    """Trace and couple a network, and give it values in which no parameter or statistic is 0 or 1."""
    spec = SampleSpec(shape, CLASSES, token_ids)
    dtype = next(split.module.parameters()).dtype
    groups, member = channel_groups(split, spec, dtype)
    graph = trace(split, spec, groups)
    layout = make_layout(split, groups, member, lambda part: part != PREDICTOR, "average")
    model = FlatModel(split, layout, torch.device("cpu"))
    shake(model)
    return Traced(model, spec, graph, couple(graph))


@cache
def network(
    name: str, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float64, **options: Any
) -> Traced:
    """A network by its name, built once: tests put back what they change."""
    ids = options.get("token_ids")
    return traced(split_model(name, shape, CLASSES, dtype, **options), shape, ids)


def own(
    encoder: nn.Module | Callable[[Tensor], Tensor],
    features: int,
    shape: tuple[int, ...] = SHAPE,
    **parts: nn.Module,
) -> Traced:
    """An encoder, global pooling of images, and a linear predictor; float64.

    Args:
        encoder: a module, or a function of the encoder (with `parts` in it) and the samples.
        features: what the predictor reads, as many as the encoder's channels.
        shape: of a sample.
        parts: submodules of the encoder, if that is a function.
    """
    module = Pooled(
        encoder if isinstance(encoder, nn.Module) else Written(encoder, parts), features
    )
    with seeding.torch_seeded(0, "model"):
        for part in module.modules():
            if isinstance(part, LAYERS):
                part.reset_parameters()
    return traced(SplitModel(module.double(), {"predictor": PREDICTOR}), shape)


class Written(nn.Module):
    """Submodules and a function that calls them."""

    def __init__(self, function: Callable[..., Tensor], parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Pooled(nn.Module):
    """Encoder, global pooling of images, predictor."""

    def __init__(self, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = nn.Linear(features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        logits: Tensor = self.predictor(x.mean(dim=(2, 3)) if x.dim() == 4 else x)
        return logits


def block(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    """A convolution, batch norm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def dense() -> Traced:
    """Concatenations of post-activation blocks, pooled, and a functional flattening."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.first(x)], 1)
        x = torch.cat((x, self.second(x), x), dim=1)
        x = functional.avg_pool2d(functional.max_pool2d(x, 2), 4, stride=4)
        return functional.relu(self.wide(x.view(x.size(0), -1)))

    return own(
        forward, 7, stem=block(1, 4), first=block(4, 3), second=block(7, 5, 1),
        wide=nn.Linear(19 * 4, 7),
    )  # fmt: skip


def mobile() -> Traced:
    """An inverted residual with squeeze-and-excitation: depthwise, products, sums."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        gate = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(y, 1)))
        y = functional.hardsigmoid(self.excite(gate)) * y
        return x + self.norm(self.project(y))

    return own(
        forward, 4, stem=block(1, 4, stride=2), expand=block(4, 9, 1),
        depthwise=block(9, 9, groups=9), squeeze=nn.Conv2d(9, 3, 1), excite=nn.Conv2d(3, 9, 1),
        project=nn.Conv2d(9, 4, 1), norm=nn.BatchNorm2d(4),
    )  # fmt: skip


def grouped() -> Traced:
    """A residual sum between two group norms of different groups."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = functional.relu(self.one(self.first(x)))
        return x + self.two(self.second(x))

    parts = {"first": nn.Conv2d(1, 24, 3, padding=1), "one": nn.GroupNorm(12, 24)}
    parts |= {"second": nn.Conv2d(24, 24, 3, padding=1), "two": nn.GroupNorm(8, 24)}
    return own(forward, 24, **parts)


OWN = {"dense": cache(dense), "mobile": cache(mobile), "grouped": cache(grouped)}
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("mlp", {"hidden": (7, 5)}),
    ("lenet", {}),
    ("lenet", {"norm": "batch"}),
    ("cnn", {"width": 4, "hidden": 8}),
    ("vgg11", {"width": 4}),
    ("vgg11", {"width": 4, "norm": "batch"}),
    ("resnet20", {"width": 4}),
    ("resnet20", {"width": 4, "norm": "none"}),
    ("resnet20", {"width": 4, "norm": "group"}),
    *((name, {}) for name in OWN),
]
"""Whose channels can be removed, all but a group norm's single group."""


def case(name: str, options: dict[str, Any]) -> Traced:
    """One of NETWORKS, built once; lists of widths are tuples here, so that they can be cached."""
    return OWN[name]() if name in OWN else network(name, **options)


def shake(model: FlatModel, seed: int = 0) -> None:
    """Parameters and statistics of which none is 0 or 1, near what initialisation gives."""
    draw = np.random.default_rng(seed)
    scale = torch.from_numpy(draw.uniform(0.5, 1.5, model.parameters.shape))
    shift = torch.from_numpy(draw.normal(0, 0.05, model.parameters.shape))
    model.parameters.copy_(model.parameters * scale + shift)
    model.buffers.copy_(torch.from_numpy(draw.uniform(0.3, 1.0, model.buffers.shape)))
    model.evaluate()


def some_bits(case: Traced, seed: int) -> Bits:
    """Channels of some classes, not all of each; at least one channel of each layer."""
    draw = np.random.default_rng(seed)
    labels = case.coupling.labels
    classes = np.append(draw.random(case.coupling.classes) < draw.uniform(0.1, 0.9), False)
    bits = classes[labels] & (draw.random(len(labels)) < 0.7)
    for group in case.graph.groups:
        own_bits = bits[group.offset : group.offset + group.channels]
        own_bits[draw.integers(group.channels)] |= not own_bits.any()
    return bits


@torch.no_grad()
def masked(case: Traced, bits: Bits, x: Tensor) -> Tensor:
    """The whole network's outputs with the parameters of removed channels set to 0."""
    before = case.model.read()
    kept = case.model.layout.parameters.expand(case.coupling.closed(bits))
    case.model.load(replace(before, parameters=before.parameters * kept))
    outputs: Tensor = case.model.module(x)
    case.model.load(before)
    return outputs


def check_slim(case: Traced, bits: Bits, tolerance: float) -> Tensor:
    """Compare a smaller network with the masked one; the masked outputs."""
    x = case.samples(3)
    expected = masked(case, bits, x.clone())
    with torch.no_grad():
        outputs = slim(case.graph, case.coupling, bits)(x)
    assert (outputs - expected).abs().max() <= tolerance * expected.abs().max()
    return expected
