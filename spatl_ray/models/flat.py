"""A module whose parameters, gradients and buffers are views of three flat vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from spatl_ray.models.split import SplitModel
from spatl_ray.parameters import ChannelGroup, Layout, ModelVector, make_space

Tensors = list[tuple[str, str, tuple[int, ...], int]]


def make_layout(
    split: SplitModel,
    groups: tuple[ChannelGroup, ...],
    member: Mapping[str, int],
    is_shared: Callable[[str], bool],
    buffers: Literal["average", "local"],
) -> Layout:
    """Lay a model out by role: shared parameters first, then local ones; buffers likewise.

    Integer buffers (batch norm's counters) have no place in it: they are never sent or stored.

    Args:
        split: the module and its parts.
        groups: the channel groups.
        member: tensor name -> index of its group.
        is_shared: whether a part, by name, is shared.
        buffers: "local" keeps all buffers with the client.
    """

    def rows(tensors: list[tuple[str, Tensor]], shared: bool, local_anyway: bool) -> Tensors:
        found = []
        for name, tensor in tensors:
            part = split.part_of(name)
            if (is_shared(part) and not local_anyway) == shared:
                found.append((name, part, tuple(tensor.shape), member.get(name, -1)))
        return found

    parameters = [(n, p.detach()) for n, p in split.module.named_parameters()]
    floating = [(n, b) for n, b in split.module.named_buffers() if b.is_floating_point()]
    local = buffers == "local"
    return Layout(
        shared=make_space(rows(parameters, True, False), groups),
        local=make_space(rows(parameters, False, False), groups),
        shared_buffers=make_space(rows(floating, True, local), groups),
        local_buffers=make_space(rows(floating, False, local), groups),
    )


class FlatModel:
    """A module over flat vectors: loading a client's model is one copy.

    Attributes:
        module: the network; its tensors are views of the vectors below.
        layout: where each tensor lives in them.
        parameters: shape (layout.parameters.size,).
        gradient: same shape; `.backward()` adds to it.
        buffers: shape (layout.buffers.size,).
    """

    def __init__(self, split: SplitModel, layout: Layout, device: torch.device) -> None:
        self.split = split
        self.layout = layout
        self.module = split.module.to(device)
        first = next(self.module.parameters())
        self.parameters = torch.zeros(layout.parameters.size, dtype=first.dtype, device=device)
        self.gradient = torch.zeros_like(self.parameters)
        self.buffers = torch.zeros(layout.buffers.size, dtype=first.dtype, device=device)
        self._bind()

    def _bind(self) -> None:
        """Make the module's tensors views of the vectors, keeping their values."""
        by_name = dict(self.module.named_parameters())
        with torch.no_grad():
            for s in self.layout.parameters.segments:
                parameter = by_name[s.name]
                view = self.parameters[s.span].view(s.shape)
                view.copy_(parameter)
                parameter.data = view
                parameter.grad = self.gradient[s.span].view(s.shape)
            for s in self.layout.buffers.segments:
                owner, _, name = s.name.rpartition(".")
                module: nn.Module = self.module.get_submodule(owner)
                view = self.buffers[s.span].view(s.shape)
                view.copy_(module._buffers[name])  # type: ignore[arg-type]
                module._buffers[name] = view

    def load(self, vector: ModelVector) -> None:
        """Copy a model into the module."""
        self.parameters.copy_(torch.from_numpy(_writable(vector.parameters)))
        self.buffers.copy_(torch.from_numpy(_writable(vector.buffers)))

    def read(self) -> ModelVector:
        """A copy of the module's values."""
        return ModelVector(
            self.parameters.detach().cpu().numpy().copy(), self.buffers.cpu().numpy().copy()
        )

    def train(self, parts: frozenset[str] | None) -> None:
        """Training mode for the given parts (None: all); the others are frozen, in evaluation mode."""
        self.module.train()
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(parts is None or self.split.part_of(name) in parts)
        if parts is not None:
            for name, module in self.module.named_modules():
                if not list(module.children()) and self.split.part_of(name) not in parts:
                    module.eval()

    def evaluate(self) -> None:
        """Evaluation mode for the whole module."""
        self.module.eval()


def _writable(array: np.ndarray) -> np.ndarray:
    """The array, or a copy if it is read-only (torch does not take those without a warning)."""
    return array if array.flags.writeable else array.copy()
