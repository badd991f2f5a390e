"""Which tensors share a channel mask: a layer's weights, its bias and the normalisation behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spatl_ray.models.split import ENCODER, SplitModel
from spatl_ray.parameters import ChannelGroup

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def _followers(module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, str]:
    """Leaf module name -> the prunable layer whose output it takes, seen in one forward pass.

    The hooks compare tensors by identity; `alive` keeps them, so that no identity is used twice.
    """
    names = {m: name for name, m in module.named_modules() if not list(m.children())}
    made_by: dict[int, str] = {}
    alive: list[Any] = []
    found: dict[str, str] = {}

    def before(layer: nn.Module, args: tuple[Any, ...]) -> None:
        if args and id(args[0]) in made_by:
            found[names[layer]] = made_by[id(args[0])]

    def behind(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(layer, PRUNABLE) and isinstance(output, Tensor):
            alive.append(output)
            made_by[id(output)] = names[layer]

    handles = [m.register_forward_pre_hook(before) for m in names]
    handles += [m.register_forward_hook(behind) for m in names]
    was_training = module.training
    try:
        module.eval()
        with torch.no_grad():
            module(torch.zeros(2, *shape, dtype=dtype))
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    return found


def _rows(module: nn.Module, channels: int) -> list[str]:
    """A module's own floating tensors, if the first dimension of all of them is `channels`."""
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    named = [(name, t) for name, t in tensors if t.is_floating_point()]
    fits = all(t.dim() > 0 and t.shape[0] == channels for _, t in named)
    return [name for name, _ in named] if fits else []


def channel_groups(
    split: SplitModel, shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[tuple[ChannelGroup, ...], Mapping[str, int]]:
    """The encoder's prunable layers, and the group of each tensor that a channel mask covers.

    A convolution or linear layer of the encoder is one group. A leaf module that takes its output
    directly and holds one value a channel (batch, group or layer norm) follows it, buffers included.

    Returns:
        The groups in the module's order, and tensor name -> index of its group.
    """
    modules = dict(split.module.named_modules())
    followers = _followers(split.module, shape, dtype)
    groups: list[ChannelGroup] = []
    member: dict[str, int] = {}
    offset = 0
    for name, module in modules.items():
        if not isinstance(module, PRUNABLE) or split.part_of(name) != ENCODER:
            continue
        channels = module.weight.shape[0]
        index = len(groups)
        groups.append(ChannelGroup(name, channels, offset))
        offset += channels
        behind = [f for f, layer in followers.items() if layer == name]
        follows = [f for f in behind if _can_follow(modules[f]) and split.part_of(f) == ENCODER]
        for owner in (name, *follows):
            member.update({f"{owner}.{t}": index for t in _rows(modules[owner], channels)})
    return tuple(groups), member


def _can_follow(module: nn.Module) -> bool:
    """Whether a module may share the mask of the layer before it: another prunable layer may not."""
    return not isinstance(module, PRUNABLE)
