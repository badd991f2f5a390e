"""As many channels as fit into the bytes that a client may send."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Bits
from spatl_ray.errors import ConfigError
from spatl_ray.parameters import Space
from spatl_ray.selection.candidate import Candidate


def steps_of(space: Space, ratios: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """The factors in (0, 1], rising, at which scaled keep ratios keep one channel more.

    With r the ratio of a layer of C channels, that is f = (k - 1/2) / (r C) for its k-th channel,
    k >= 2. The last is 1.
    """
    factors = [np.ones(1)]
    for group in space.groups:
        most = ratios[group.name] * group.channels
        k = np.arange(2, int(most + 0.5) + 1)
        # The small factor: rounding must not lose the channel that the step stands for.
        factors.append(np.minimum((k - 0.5) / most * (1 + 1e-12), 1))
    return np.unique(np.concatenate(factors))


def largest_within(
    candidate: Candidate, ratios: Mapping[str, float], kept: Callable[[float], Bits]
) -> Bits:
    """The channels of the largest common factor on the keep ratios whose update fits the budget.

    The factors at which a channel is added are searched by bisection, the update of each tried one
    is encoded: about log2(channels) encodings, and only one if all fit. (Where the receiver
    remembers a mask, one step may be shorter than the one before it: what is found then fits, but a
    larger one might too.)

    Args:
        candidate: with the budget, None for no bound.
        ratios: keep ratio by layer name.
        kept: the channels kept at a factor; more at a larger one, and one a layer at 0.

    Raises:
        ConfigError: one channel a layer is more than the budget.
    """
    whole = kept(1.0)
    budget, bytes_of = candidate.budget_bytes, candidate.bytes_of
    if budget is None or bytes_of is None or bytes_of(whole) <= budget:
        return whole
    best = kept(0.0)
    least = bytes_of(best)
    if least > budget:
        raise ConfigError(
            f"devices.budget_bytes_up must be at least {least}, the bytes of one channel a layer, "
            f"got {budget:g} for client {candidate.client}"
        )
    factors = steps_of(candidate.space, ratios)[:-1]
    low, high = 0, len(factors)  # those before low fit, those from high on do not
    while low < high:
        middle = (low + high) // 2
        bits = kept(float(factors[middle]))
        if bytes_of(bits) <= budget:
            best, low = bits, middle + 1
        else:
            high = middle
    return best
