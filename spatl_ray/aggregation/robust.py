"""Rules for hostile clients: they need every update of a round at once, and respect masks.

References:
    Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine learning with adversaries: Byzantine tolerant gradient
    descent", NeurIPS 2017 (Krum and multi-Krum).
    Yin, Chen, Kannan, Bartlett, "Byzantine-robust distributed learning", ICML 2018 (median, trimmed mean).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from spatl_ray.aggregation.masked import Total
from spatl_ray.arrays import Doubles
from spatl_ray.parameters import Space
from spatl_ray.update import Part

BLOCK = 1 << 16
"""Positions a block: memory is clients * BLOCK doubles, whatever the model's size."""

ROUNDING = 1e-9


def hostile_clients(share: float, clients: int) -> int:
    """f: a share of some clients, rounded down."""
    return math.floor(share * clients + ROUNDING)


def coordinate_median(space: Space, parts: Sequence[Part], hostile: float) -> Total:
    """At each position the median over the clients that sent it; all of them count alike.

    With f = floor(hostile n) hostile ones of n clients, a position takes 2f + 1 that sent it: else those that
    lie could be the most. Where fewer did, nothing counts as sent.

    Args:
        space: of the parts' vectors.
        parts: one a client, in any order.
        hostile: the share that it withstands, below 1/2.
    """
    f = hostile_clients(hostile, len(parts))
    return _by_position(space, parts, 2 * f + 1, lambda rows: np.nanmedian(rows, axis=0))


def trimmed_mean(space: Space, parts: Sequence[Part], hostile: float) -> Total:
    """At each position the mean of what was sent without the f largest and the f smallest values.

    All clients count alike; f = floor(hostile n) of n clients. A position takes 2f + 1 that sent it, as with
    the median.

    Args:
        space: of the parts' vectors.
        parts: one a client, in any order.
        hostile: the share that it withstands, below 1/2.
    """
    f = hostile_clients(hostile, len(parts))

    def trimmed(rows: Doubles) -> Doubles:
        ordered = np.sort(rows, axis=0)  # NaN, which stands for nothing sent, comes last
        count = (~np.isnan(rows)).sum(axis=0)
        place = np.arange(len(rows))[:, None]
        stays = (place >= f) & (place < count - f)
        means: Doubles = np.where(stays, ordered, 0.0).sum(axis=0) / (count - 2 * f)
        return means

    return _by_position(space, parts, 2 * f + 1, trimmed)


def krum_scores(spaces: Sequence[Space], clients: Sequence[Sequence[Part]], f: int) -> Doubles:
    """For each client the sum of squared distances to its n - f - 2 nearest others, at least one.

    What a client did not send is 0, as it moves nothing: were only positions compared that two clients both
    sent, one that lies where nobody else sends anything would be near to all.

    Args:
        spaces: of the parts.
        clients: the parts of each client.
        f: number of hostile ones.
    """
    n = len(clients)
    if n < 2:
        return np.zeros(n)
    products = np.zeros((n, n))
    for index, space in enumerate(spaces):
        for _, rows in _blocks(space, [parts[index] for parts in clients]):
            values = np.nan_to_num(rows, nan=0.0)
            products += values @ values.T
    squares = np.diag(products)
    distances = (squares[:, None] + squares - 2 * products).clip(min=0.0)
    np.fill_diagonal(distances, np.inf)
    nearest = max(1, n - f - 2)
    scores: Doubles = np.sort(distances, axis=1)[:, :nearest].sum(axis=1)
    return scores


def krum_choice(scores: Doubles, count: int) -> list[int]:
    """The clients with the lowest scores; of equal ones the first."""
    return sorted(np.argsort(scores, kind="stable")[:count].tolist())


def _by_position(
    space: Space, parts: Sequence[Part], least: int, rule: Callable[[Doubles], Doubles]
) -> Total:
    """A rule applied to each position that enough clients sent."""
    values = np.zeros(space.size)
    sent = np.zeros(space.size, dtype=np.bool_)
    for span, rows in _blocks(space, parts):
        seen = (~np.isnan(rows)).sum(axis=0) >= least
        sent[span] = seen
        values[span][seen] = rule(rows[:, seen])
    return Total(values, None if sent.all() else sent)


def _blocks(space: Space, parts: Sequence[Part]) -> Iterator[tuple[slice, Doubles]]:
    """The clients' values as rows, block by block, NaN where nothing was sent."""
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
        yield span, rows
