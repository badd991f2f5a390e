"""Salience of output channels, and masks that keep the most salient ones of each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Bits
from spatl_ray.config import KeepSchedule
from spatl_ray.errors import ConfigError
from spatl_ray.parameters import Array, ChannelGroup, Space

Scores = npt.NDArray[np.float64]

FLOOR = 0.1
"""The least keep ratio that an agent or a global threshold gives a layer (Yu et al., SC22)."""


def channel_norms(space: Space, vector: Array, order: int, whole: bool = False) -> Scores:
    """The L1 or L2 norm of each output channel's weights, shape (space.channels,).

    Only a layer's weights count (of a recurrent layer the input's and the hidden state's), not its
    biases or the normalisation behind it, unless the `whole` of a channel does.

    Args:
        space: the vector's space.
        vector: shape (space.size,): weights, or their movement.
        order: 1 or 2.
        whole: whether all that goes with a channel counts.
    """
    scores = np.zeros(space.channels)
    join = np.add if order == 1 else np.hypot
    for segment in space.segments:
        if segment.group < 0 or (len(segment.shape) < 2 and not whole):
            continue
        group = space.groups[segment.group]
        rows = vector[segment.span].reshape(group.channels, -1).astype(np.float64)
        own = scores[group.offset : group.offset + group.channels]
        own[:] = join(own, np.linalg.norm(rows, order, axis=1))
    return scores


def kept_channels(ratio: float, channels: int) -> int:
    """Channels that a keep ratio leaves: ratio * channels to the nearest (half up), at least one."""
    return max(1, int(ratio * channels + 0.5))


def keep_most_salient(space: Space, scores: Scores, ratios: Mapping[str, float]) -> Bits:
    """Channel bits that keep the highest scores of each layer; ties go to the lower index.

    Args:
        space: the encoder's space.
        scores: shape (space.channels,).
        ratios: keep ratio in (0, 1] by layer name, one for every group.
    """
    bits = np.zeros(space.channels, dtype=np.bool_)
    for group in space.groups:
        own = scores[group.offset : group.offset + group.channels]
        count = kept_channels(ratios[group.name], group.channels)
        best = np.argsort(-own, kind="stable")[:count]
        bits[group.offset + best] = True
    return bits


def scheduled(schedule: KeepSchedule | None, keep: float, round_: int) -> float:
    """The keep ratio of a round: from `start` to `keep`, in equal steps of u = round / rounds, at most 1.

    Linear start + (keep - start) u, cosine keep + (start - keep) (1 + cos(pi u)) / 2, exponential
    start (keep / start)^u.

    Args:
        schedule: None for the same ratio in all rounds.
        keep: the ratio in the end.
        round_: the round.
    """
    if schedule is None or round_ >= schedule.rounds:
        return keep
    start, u = schedule.start, round_ / schedule.rounds
    if schedule.shape == "linear":
        return start + (keep - start) * u
    if schedule.shape == "cosine":
        return keep + (start - keep) * (1 + math.cos(math.pi * u)) / 2
    return start * math.pow(keep / start, u)


def layer_ratios(space: Space, keep: float, own: Mapping[str, float]) -> dict[str, float]:
    """The keep ratio of each layer: its own one, else `keep`.

    Raises:
        ConfigError: `own` names a layer that the encoder does not have.
    """
    names = [group.name for group in space.groups]
    faults = [
        f"algorithm.keep_layers must name prunable encoder layers ({', '.join(names)}), got {name!r}"
        for name in own
        if name not in names
    ]
    if faults:
        raise ConfigError(faults)
    return {name: own.get(name, keep) for name in names}


def global_ratios(
    groups: Sequence[ChannelGroup], scores: Scores, keep: float, floor: float = FLOOR
) -> dict[str, float]:
    """The share of each layer's channels among the highest scores of all layers.

    Layers of different scale are comparable once a score is divided by its layer's root mean square.
    No layer falls below the floor, so that somewhat more than `keep` may be kept.

    Args:
        groups: the layers.
        scores: shape (channels of all groups,).
        keep: share of all channels.
        floor: the least share of a layer.
    """
    own = [slice(g.offset, g.offset + g.channels) for g in groups]
    scaled = [scores[s] / (np.sqrt(np.mean(scores[s] ** 2)) + 1e-12) for s in own]
    ordered = np.sort(np.concatenate(scaled))[::-1]
    least = ordered[kept_channels(keep, len(ordered)) - 1]
    shares = [float((each >= least).mean()) for each in scaled]
    return {g.name: max(share, floor) for g, share in zip(groups, shares, strict=True)}
