"""Which updates count: judged on the decoded values, before anything is summed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from spatl_ray.aggregation.exact import limit
from spatl_ray.arrays import l2_norm
from spatl_ray.parameters import Array
from spatl_ray.update import Part, Parts, Update

Status = Literal["accepted", "clipped", "rejected", "late"]


@dataclass(frozen=True)
class Verdict:
    """What the aggregator makes of one update.

    Attributes:
        status: accepted as it is, clipped (scaled down), rejected, or late: it came after the server
            had stopped waiting.
        scale: factor on the update's values; 1 unless clipped.
        reason: why it is not simply accepted.
    """

    status: Status
    scale: float = 1.0
    reason: str = ""

    @property
    def counts(self) -> bool:
        """Whether the update is summed."""
        return self.status in ("accepted", "clipped")

    def applied(self, update: Update) -> Update:
        """The update as it counts: scaled if it was clipped (values are float64 then)."""
        if self.scale == 1.0:
            return update
        scaled = {n: Part(p.mask, _doubles(p.values) * self.scale) for n, p in update.parts.items()}
        return replace(update, parts=scaled)


ACCEPTED = Verdict("accepted")


def _doubles(values: Array) -> Array:
    return np.asarray(values, dtype=np.float64)


def judge_update(update: Update, clip_norm: float | None) -> Verdict:
    """Reject NaN, infinity and an infinite norm; scale to an L2 norm of at most `clip_norm`.

    The norm is taken over the part "delta"; all parts are scaled alike.
    """
    for name, part in update.parts.items():
        if not np.isfinite(part.values).all():
            return Verdict("rejected", reason=f"{name} holds NaN or infinite values")
    if clip_norm is None or "delta" not in update.parts:
        return ACCEPTED
    norm = l2_norm(update.parts["delta"].values)
    if norm <= clip_norm:
        return ACCEPTED
    if not np.isfinite(norm):
        return Verdict("rejected", reason="the L2 norm of delta is over what float64 can hold")
    return Verdict("clipped", clip_norm / norm, f"L2 norm {norm:.4g} is over {clip_norm:g}")


def judge_terms(terms: Parts, levels: int) -> Verdict:
    """Reject terms outside of what is summed exactly: |value| must stay below a quarter of `limit(levels)`.

    Weights of a round sum to at most 1, so that values below the limit give sums below it.
    """
    bound = limit(levels) / 4
    for name, part in terms.items():
        largest = float(np.abs(_doubles(part.values)).max(initial=0.0))
        if not largest < bound:
            return Verdict("rejected", reason=f"{name} reaches {largest:.4g}, over {bound:.4g}")
    return ACCEPTED
