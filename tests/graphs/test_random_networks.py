"""Of networks put together at random, the smaller one gives what the masked one gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from graph_models import Traced, check_slim, own, some_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from spatl_ray.graphs.cost import Cost
from spatl_ray.graphs.slim import slim

ELEMENTWISE: list[Callable[[Tensor], Tensor]] = [
    torch.relu,
    torch.sigmoid,
    functional.hardswish,
    lambda x: 1 - x,
    lambda x: 0.5 * x[:, :, ::1],
    lambda x: functional.relu(x.clone(), inplace=True),
    lambda x: functional.relu(x, inplace=True),
]


@dataclass
class Recipe:
    """A network of 3x6x6 samples as it grows: each step reads earlier tensors and gives one more."""

    draw: np.random.Generator
    parts: dict[str, nn.Module] = field(default_factory=dict)
    widths: list[int] = field(default_factory=lambda: [3])
    steps: list[Callable[[Any, list[Tensor]], Tensor]] = field(default_factory=list)

    def layer(self, module: nn.Module) -> str:
        self.parts[f"part{len(self.parts)}"] = module
        return f"part{len(self.parts) - 1}"

    def chain(self, i: int, width: int, *modules: nn.Module) -> None:
        """Modules one after the other."""
        names = [self.layer(module) for module in modules]

        def step(net: Any, tensors: list[Tensor]) -> Tensor:
            x = tensors[i]
            for name in names:
                x = getattr(net, name)(x)
            return x

        self.give(width, step)

    def give(self, width: int, step: Callable[[Any, list[Tensor]], Tensor]) -> None:
        self.widths.append(width)
        self.steps.append(step)

    def partner(self, width: int) -> int:
        """An earlier tensor of that many channels."""
        return int(self.draw.choice([j for j, w in enumerate(self.widths) if w == width]))

    def grow(self) -> None:
        """One more step, of any kind."""
        kind = int(self.draw.integers(11))
        i = int(self.draw.integers(max(0, len(self.widths) - 4), len(self.widths)))
        width, new = self.widths[i], int(self.draw.integers(2, 7))
        convolution = nn.Conv2d(width, new, 3, padding=1)
        parts = max(d for d in range(1, new + 1) if new % d == 0 and d < new)
        j, k = self.partner(width), int(self.draw.integers(len(self.widths)))
        before, behind = (int(n) for n in self.draw.integers(0, 3, 2))
        function = ELEMENTWISE[int(self.draw.integers(len(ELEMENTWISE)))]
        if kind < 3:
            norms = [nn.Identity(), nn.BatchNorm2d(new), nn.GroupNorm(parts, new)]
            self.chain(i, new, convolution, norms[kind])
        elif kind == 3:
            deep = nn.Conv2d(width, width, 3, padding=1, groups=width)
            self.chain(i, width, deep, nn.BatchNorm2d(width))
        elif kind == 4:
            self.chain(i, width, nn.BatchNorm2d(width))
        elif kind == 5:
            gate = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, new, 1), nn.ReLU(),
                nn.Conv2d(new, width, 1), nn.Hardsigmoid(),
            )  # fmt: skip
            name = self.layer(gate)
            self.give(width, lambda net, t: getattr(net, name)(t[i]) * t[i])
        elif kind == 6:
            self.give(width, lambda net, t: t[i] + t[j])
        elif kind == 7:
            self.give(width, lambda net, t: t[i] * t[j])
        elif kind == 8:
            self.give(width + self.widths[k], lambda net, t: torch.cat([t[i], t[k]], 1))
        elif kind == 9:
            pads = (0, 0, 0, 0, before, behind)
            self.give(width + before + behind, lambda net, t: functional.pad(t[i], pads))
        else:
            self.give(width, lambda net, t: function(t[i]))

    def build(self) -> Traced:
        def forward(net: Any, x: Tensor) -> Tensor:
            tensors = [x]
            for step in self.steps:
                tensors.append(step(net, tensors))
            return tensors[-1]

        return own(forward, self.widths[-1], (3, 6, 6), **self.parts)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_a_smaller_random_network_equals_the_masked_one(seed: int) -> None:
    recipe = Recipe(np.random.default_rng(seed))
    for _ in range(12):
        recipe.grow()
    net = recipe.build()
    bits = some_bits(net, seed)
    check_slim(net, bits, 1e-9)
    small = slim(net.graph, net.coupling, bits)
    assert Cost(net.graph).parameters(bits) == sum(p.numel() for p in small.parameters())
