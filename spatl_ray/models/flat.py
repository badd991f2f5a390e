"""A module whose parameters, gradients and buffers are views of three flat vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from spatl_ray.errors import ModelError
from spatl_ray.models.split import SplitModel
from spatl_ray.parameters import ChannelGroup, Layout, ModelVector, make_space

Tensors = list[tuple[str, str, tuple[int, ...], int]]
Bound = list[tuple[nn.Module, str, Tensor]]


def make_layout(
    split: SplitModel,
    groups: tuple[ChannelGroup, ...],
    member: Mapping[str, int],
    is_shared: Callable[[str], bool],
    buffers: Literal["average", "local"],
) -> Layout:
    """Lay a model out by role: shared parameters first, then local ones; buffers likewise.

    Integer buffers (batch norm's counters) have no place in it: they are never sent or stored. A
    tied tensor has one place, under its first name.

    Args:
        split: the module and its parts.
        groups: the channel groups.
        member: tensor name -> index of its group.
        is_shared: whether a part, by name, is shared.
        buffers: "local" keeps all buffers with the client.

    Raises:
        ModelError: a tensor is tied between a shared and a local part.
    """
    _refuse_ties(split, is_shared)

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


def _refuse_ties(split: SplitModel, is_shared: Callable[[str], bool]) -> None:
    """A tensor that two parts have in common cannot be shared in one and local in the other."""
    first: dict[int, str] = {}
    module = split.module
    tensors = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in tensors:
        other = first.setdefault(id(tensor), name)
        here, there = split.part_of(name), split.part_of(other)
        if is_shared(here) != is_shared(there):
            local, shared = sorted((here, there), key=is_shared)
            raise ModelError(
                f"{other} and {name} are one tensor, but {shared} is shared and {local} is local: "
                "untie them, or put both into one part"
            )


class FlatModel:
    """A module over flat vectors: loading a client's model is one copy.

    Nothing of one client's training stays for the next: integer buffers, which no vector holds,
    return to their first values with each load.

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
        self._bind_parameters()
        self._bound = self._bind_buffers()
        places = [place for *_, place in self._bound]
        self._counters = [(c, c.clone()) for c in places if not c.is_floating_point()]

    @torch.no_grad()
    def _bind_parameters(self) -> None:
        """Make the module's parameters and gradients views of the vectors, keeping their values."""
        by_name = dict(self.module.named_parameters())
        for s in self.layout.parameters.segments:
            parameter = by_name[s.name]
            view = self.parameters[s.span].view(s.shape)
            view.copy_(parameter)
            parameter.data = view
            parameter.grad = self.gradient[s.span].view(s.shape)

    @torch.no_grad()
    def _bind_buffers(self) -> Bound:
        """Make the module's floating buffers views of their vector, wherever they are registered."""
        by_name = dict(self.module.named_buffers())
        views = {}
        for s in self.layout.buffers.segments:
            views[id(by_name[s.name])] = view = self.buffers[s.span].view(s.shape)
            view.copy_(by_name[s.name])
        bound = []
        for module in self.module.modules():
            for name, tensor in module._buffers.items():
                if tensor is not None:
                    module._buffers[name] = views.get(id(tensor), tensor)
                    bound.append((module, name, views.get(id(tensor), tensor)))
        return bound

    def load(self, vector: ModelVector) -> None:
        """Copy a model into the module."""
        self._rebind()
        for counter, first in self._counters:
            counter.copy_(first)
        self.parameters.copy_(torch.from_numpy(_writable(vector.parameters)))
        self.buffers.copy_(torch.from_numpy(_writable(vector.buffers)))

    @torch.no_grad()
    def _rebind(self) -> None:
        """Copy buffers that a forward pass has replaced, instead of changed, into their place."""
        for module, name, place in self._bound:
            value = module.get_buffer(name)
            if value is not place:
                place.copy_(value)
                module._buffers[name] = place

    def read(self) -> ModelVector:
        """A copy of the module's values."""
        self._rebind()
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
                if parts.isdisjoint(self._parts_in(name, module)):
                    module.eval()

    def _parts_in(self, name: str, module: nn.Module) -> set[str]:
        """The parts of a module and of everything inside it."""
        inner = (f"{name}.{inside}".strip(".") for inside, _ in module.named_modules())
        return {self.split.part_of(path) for path in inner}

    def evaluate(self) -> None:
        """Evaluation mode for the whole module."""
        self.module.eval()


def _writable(array: np.ndarray) -> np.ndarray:
    """The array, or a copy if it is read-only (torch does not take those without a warning)."""
    return array if array.flags.writeable else array.copy()
