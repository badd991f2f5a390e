"""Criteria: what makes a channel salient, by name or as `package.module:function`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from spatl_ray import plugins
from spatl_ray.errors import ConfigError
from spatl_ray.selection.candidate import Candidate
from spatl_ray.selection.salience import Scores, channel_norms

Criterion = Callable[[Candidate], Scores]
"""A score a channel, shape (space.channels,); larger is more salient."""


def l1(candidate: Candidate) -> Scores:
    """L1 norm of a channel's weights after local training."""
    return channel_norms(candidate.space, candidate.weights, 1)


def l2(candidate: Candidate) -> Scores:
    """L2 norm of a channel's weights after local training."""
    return channel_norms(candidate.space, candidate.weights, 2)


def update(candidate: Candidate) -> Scores:
    """L2 norm of the movement of a channel's weights, as it would be sent."""
    return channel_norms(candidate.space, candidate.update, 2)


def mixed(candidate: Candidate) -> Scores:
    """Geometric mean of `l2` and `update`: salient is what is large and moves.

    Of all means it is the one that needs no common scale: multiplying a layer's weights or movements by a
    constant changes no order in the layer.
    """
    return np.sqrt(l2(candidate) * update(candidate))


def random(candidate: Candidate) -> Scores:
    """Random numbers: what any other criterion has to beat."""
    return candidate.generator.random(candidate.space.channels)


def taylor(candidate: Candidate) -> Scores:
    """First-order effect on the training loss of setting a channel's weights to 0: sum of |w g|.

    References:
        Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance estimation for neural network pruning",
        CVPR 2019, equation 8 (which squares w g).
    """
    return channel_norms(candidate.space, candidate.weights * candidate.gradient(), 1)


def norm_scale(candidate: Candidate) -> Scores:
    """Size of the scale with which the normalisation behind a layer multiplies the channel.

    Raises:
        ConfigError: a layer without a normalisation behind it.

    References:
        Liu, Li, Shen, Huang, Yan, Zhang, "Learning efficient convolutional networks through network
        slimming", ICCV 2017.
    """
    space = candidate.space
    scores = np.full(space.channels, np.nan)
    for segment in space.norm_scales:
        group = space.groups[segment.group]
        own = slice(group.offset, group.offset + group.channels)
        scores[own] = np.abs(candidate.weights[segment.span])
    without = [g.name for g in space.groups if np.isnan(scores[g.offset])]
    if without:
        raise ConfigError(
            "criterion norm_scale needs a batch, group or layer norm behind every prunable layer, "
            f"got none behind {', '.join(without)}"
        )
    return scores


CRITERIA: Mapping[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "update": update,
    "mixed": mixed,
    "random": random,
    "taylor": taylor,
    "norm_scale": norm_scale,
}


def make_criterion(name: str, field: str) -> Criterion:
    """The criterion of a name, which refuses scores that cannot be ordered.

    Args:
        name: one of CRITERIA, or `package.module:function` for an own one.
        field: the config field it came from, for errors.

    Raises:
        ConfigError: an own one that cannot be imported or called. The criterion itself raises it if
            its scores are no finite floating-point array with one value a channel.
    """
    found = CRITERIA[name] if name in CRITERIA else plugins.load(name, field)
    return partial(_checked, found, f"{field} {name!r}")


def _checked(criterion: Callable[[Candidate], Any], name: str, candidate: Candidate) -> Scores:
    """The criterion's scores, as float64: annotations do not bind an own one."""
    scores = criterion(candidate)
    needed = (candidate.space.channels,)
    if not isinstance(scores, np.ndarray) or not np.issubdtype(scores.dtype, np.floating):
        got = f"one of {scores.dtype}" if isinstance(scores, np.ndarray) else type(scores).__name__
        raise ConfigError(f"{name} must return a NumPy array of floats, got {got}")
    if scores.shape != needed:
        raise ConfigError(
            f"{name} must return one score a channel, shape {needed}, got {scores.shape}"
        )
    if not np.isfinite(scores).all():
        channel = int(np.argmin(np.isfinite(scores)))
        raise ConfigError(
            f"{name} must return finite scores, got {scores[channel]} for channel {channel}"
        )
    return scores.astype(np.float64, copy=False)
