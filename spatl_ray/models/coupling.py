"""Which tensors share a channel mask: a layer's weights, its bias and the normalisation behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.models.split import ENCODER, SplitModel, blank
from spatl_ray.parameters import ChannelGroup

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def _followers(module: nn.Module, spec: SampleSpec, dtype: torch.dtype) -> dict[str, str]:
    """Leaf module name -> the prunable layer whose output it takes, seen in one forward pass.

    The hooks compare tensors by identity and version (an output that was changed in place is no
    longer the layer's); `alive` keeps them, so that no identity is used twice. A module that is
    used several times follows a layer only if each of its inputs is that layer's output.
    """
    names = {m: name for name, m in module.named_modules() if not list(m.children())}
    made_by: dict[tuple[int, int] | None, str] = {}
    alive: list[Any] = []
    sources: dict[str, set[str | None]] = {}

    def before(layer: nn.Module, args: tuple[Any, ...]) -> None:
        made = made_by.get(_identity(args[0] if args else None))
        sources.setdefault(names[layer], set()).add(made)

    def behind(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(layer, PRUNABLE) and isinstance(output, Tensor):
            alive.append(output)
            made_by[_identity(output)] = names[layer]

    handles = [m.register_forward_pre_hook(before) for m in names]
    handles += [m.register_forward_hook(behind) for m in names]
    was_training = module.training
    try:
        module.eval()
        with torch.no_grad():
            module(blank(spec, 2, dtype))
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    return {name: made for name, (made, *others) in sources.items() if made and not others}


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    """A module's own floating tensors, without those of its submodules."""
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [(name, tensor) for name, tensor in tensors if tensor.is_floating_point()]


def channel_groups(
    split: SplitModel, spec: SampleSpec, dtype: torch.dtype
) -> tuple[tuple[ChannelGroup, ...], Mapping[str, int]]:
    """The encoder's prunable layers, and the group of each tensor that a channel mask covers.

    A convolution or linear layer of the encoder is one group, unless its weight is another layer's
    (tied) or computed (weight norm). A leaf module that takes its output directly and holds one
    value a channel (batch, group or layer norm) follows it, buffers included.

    Returns:
        The groups in the module's order, and tensor name -> index of its group.
    """
    modules = dict(split.module.named_modules())
    followers = _followers(split.module, spec, dtype)
    named = {name for name, _ in split.module.named_parameters()}
    groups: list[ChannelGroup] = []
    member: dict[str, int] = {}
    offset = 0
    for name, module in modules.items():
        if not isinstance(module, PRUNABLE) or split.part_of(name) != ENCODER:
            continue
        if f"{name}.weight" not in named:
            continue
        channels = module.weight.shape[0]
        index = len(groups)
        groups.append(ChannelGroup(name, channels, offset))
        offset += channels
        rows = [t for t, tensor in _own(module) if tensor.shape[:1] == (channels,)]
        member.update({f"{name}.{t}": index for t in rows})
        behind = [f for f, layer in followers.items() if layer == name]
        for follower in (f for f in behind if split.part_of(f) == ENCODER):
            tensors = _own(modules[follower])
            if all(tensor.shape == (channels,) for _, tensor in tensors):
                member.update({f"{follower}.{t}": index for t, _ in tensors})
    return tuple(groups), member


def _identity(value: Any) -> tuple[int, int] | None:
    """Which tensor this is, and how often it was changed in place; None for other values."""
    return (id(value), value._version) if isinstance(value, Tensor) else None
