"""The coordinate-wise median of masked updates: a rule that needs every update at once.

References:
    Yin, Chen, Kannan, Bartlett, "Byzantine-robust distributed learning", ICML 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spatl_ray.aggregation.masked import Total
from spatl_ray.parameters import Space
from spatl_ray.update import Part

BLOCK = 1 << 16
"""Positions a block: memory is clients * BLOCK doubles, whatever the model's size."""


def coordinate_median(space: Space, parts: Sequence[Part]) -> Total:
    """At each position the median over the clients that sent it; all of them count alike.

    Args:
        space: of the parts' vectors.
        parts: one a client, in any order.
    """
    values = np.zeros(space.size)
    sent = np.zeros(space.size, dtype=np.bool_)
    kept = [part.mask.positions(space) for part in parts]
    taken = [0] * len(parts)
    for start in range(0, space.size, BLOCK):
        span = slice(start, min(start + BLOCK, space.size))
        rows = np.full((len(parts), span.stop - start), np.nan)
        for index, (part, positions) in enumerate(zip(parts, kept, strict=True)):
            here = slice(None) if positions is None else positions[span]
            end = taken[index] + rows[index, here].size
            rows[index, here] = part.values[taken[index] : end]
            taken[index] = end
        seen = ~np.isnan(rows).all(axis=0)
        sent[span] = seen
        values[span][seen] = np.nanmedian(rows[:, seen], axis=0)
    return Total(values, None if sent.all() else sent)
