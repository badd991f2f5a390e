"""A second predictor on the same encoder: the client's own one, and one that all clients share."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ConfigError
from spatl_ray.models.split import PREDICTOR, SplitModel, blank

SHARED_PREDICTOR = "shared_predictor"


class TwoHeads(nn.Module):
    """Logits of both predictors side by side while the shared one is trained, else the own one's.

    Args:
        own: the client's predictor.
        shared: that of all clients.
        both_train: whether the encoder learns from both predictors' losses; else from the own one's alone.
    """

    def __init__(self, own: nn.Module, shared: nn.Module, both_train: bool) -> None:
        super().__init__()
        self.own, self.shared, self._both_train = own, shared, both_train

    def forward(self, features: Tensor) -> Tensor:
        """Logits of shape (batch, classes), or (batch, 2 classes) with the shared predictor's behind."""
        own: Tensor = self.own(features)
        if not self.shared.training:
            return own
        seen = features if self._both_train else features.detach()
        return torch.cat([own, self.shared(seen)], dim=1)


def with_shared_predictor(model: SplitModel, both_train: bool) -> SplitModel:
    """The model with a second predictor, which begins as a copy of the first and is a part of its own.

    Args:
        model: changed: its predictor becomes `TwoHeads`.
        both_train: whether the encoder learns from both.

    Raises:
        ConfigError: a predictor of several submodules.
    """
    names = [name for name, part in model.parts.items() if part == PREDICTOR]
    if len(names) != 1:
        raise ConfigError(
            "algorithm.shared_predictor must be false for a predictor of several submodules, got "
            f"{', '.join(names)}"
        )
    (name,) = names
    own = model.module.get_submodule(name)
    parent, _, last = name.rpartition(".")
    setattr(model.module.get_submodule(parent), last, TwoHeads(own, copy.deepcopy(own), both_train))
    parts = {f"{name}.own": PREDICTOR, f"{name}.shared": SHARED_PREDICTOR}
    return SplitModel(model.module, parts)


def check_heads(model: SplitModel, spec: SampleSpec) -> None:
    """Refuse a network in which something follows the predictor: logits must come out as they are.

    Args:
        model: from `with_shared_predictor`.
        spec: of the data.

    Raises:
        ConfigError: the network changes or mixes them.
    """
    (shared,) = (n for n, part in model.parts.items() if part == SHARED_PREDICTOR)
    first = next(model.module.parameters())
    sample = blank(spec, 2, first.dtype).to(first.device)
    model.module.eval()
    with torch.no_grad():
        own = model.module(sample)
        model.module.get_submodule(shared).train()
        both = model.module(sample)
    model.module.eval()
    if both.shape != (2, 2 * spec.classes) or not torch.equal(both[:, : spec.classes], own):
        raise ConfigError(
            "algorithm.shared_predictor must be false for a network whose predictor does not come last, got "
            "true"
        )


def own_parts(model: SplitModel) -> frozenset[str] | None:
    """The parts of a client's own network where there is a shared predictor, else None: all of them."""
    if SHARED_PREDICTOR not in model.parts.values():
        return None
    names = [name for name, _ in model.module.named_parameters()]
    return frozenset(map(model.part_of, names)) - {SHARED_PREDICTOR}
