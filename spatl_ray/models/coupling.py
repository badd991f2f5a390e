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
            module(blank(spec, 2, dtype).to(next(module.parameters()).device))
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
    (tied) or computed (weight norm). So is each layer and direction of a recurrent network, e.g.
    `encoder.lstm.l0`, with one channel a row of its gates. Embeddings have no group. A leaf module
    that takes a layer's output directly and holds one value a channel (batch, group or layer norm)
    follows it, buffers included.

    Returns:
        The groups in the module's order, and tensor name -> index of its group.
    """
    modules = dict(split.module.named_modules())
    followers = _followers(split.module, spec, dtype)
    named = {name for name, _ in split.module.named_parameters()}
    groups: list[ChannelGroup] = []
    member: dict[str, int] = {}
    offset = 0
    for name in (name for name in modules if split.part_of(name) == ENCODER):
        for layer, rows in _layers(name, modules[name]).items():
            if not all(f"{name}.{t}" in named for t in rows if t.startswith("weight")):
                continue
            channels = getattr(modules[name], rows[0]).shape[0]
            member.update({f"{name}.{t}": len(groups) for t in rows})
            behind = [f for f, made_by in followers.items() if made_by == layer]
            for follower in (f for f in behind if split.part_of(f) == ENCODER):
                tensors = _own(modules[follower])
                if all(tensor.shape == (channels,) for _, tensor in tensors):
                    member.update({f"{follower}.{t}": len(groups) for t, _ in tensors})
            groups.append(ChannelGroup(layer, channels, offset))
            offset += channels
    return tuple(groups), member


def _layers(name: str, module: nn.Module) -> dict[str, list[str]]:
    """The prunable layers of a module by name, each with its tensors of one row a channel, weight first."""
    if isinstance(module, nn.RNNBase):
        return _recurrent_layers(name, module)
    if not isinstance(module, PRUNABLE):
        return {}
    channels = module.weight.shape[0]
    rows = [t for t, tensor in _own(module) if tensor.shape[:1] == (channels,)]
    return {name: ["weight", *(t for t in rows if t != "weight")]}


def _recurrent_layers(name: str, rnn: nn.RNNBase) -> dict[str, list[str]]:
    """Each layer and direction: the rows (gates * hidden) of its input and hidden weights and biases."""
    tensors = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if rnn.bias else 2]
    directions = ("", "_reverse")[: 2 if rnn.bidirectional else 1]
    suffixes = [f"l{layer}{way}" for layer in range(rnn.num_layers) for way in directions]
    return {f"{name}.{suffix}": [f"{t}_{suffix}" for t in tensors] for suffix in suffixes}


def _identity(value: Any) -> tuple[int, int] | None:
    """Which tensor this is, and how often it was changed in place; None for other values."""
    return (id(value), value._version) if isinstance(value, Tensor) else None
