"""Successive draws without replacement among available clients, without looking at all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spatl_ray.arrays import Bits, Doubles, Integers
from spatl_ray.federation.sampler import Draw

SCAN = 1 / 8
"""All clients are looked at once more than this part of their number was proposed in vain."""

Propose = Callable[[int], Integers]
Weigh = Callable[[Integers], Doubles]


def successive(draw: Draw, clients: int, propose: Propose, weigh: Weigh) -> Integers:
    """Available clients, each drawn in proportion to its weight among those not drawn before.

    Proposals that came before or cannot take part are passed over. That is the same law as drawing
    among the rest only, at any point, so the scan that ends long searches may take over anywhere.

    Args:
        draw: the round; its `size`, `generator` and `available` are used.
        clients: number N of clients.
        propose: draws that many clients of all, in proportion to their weights.
        weigh: relative weights of some clients, positive.

    Returns:
        `draw.size` clients in the order drawn; fewer only if fewer are available.
    """
    drawn = np.empty(0, np.int64)
    count, tried = draw.size, 0
    while len(drawn) < draw.size and tried <= clients * SCAN:
        fresh = _new(propose(count), drawn)
        drawn = np.concatenate([drawn, fresh[draw.available(fresh)]])[: draw.size]
        tried += count
        count = tried
    if len(drawn) == draw.size:
        return drawn
    return np.concatenate([drawn, _scan(draw, clients, drawn, weigh)])


def _new(proposed: Integers, known: Integers) -> Integers:
    """The proposed clients that are not known, each once, in the order proposed."""
    both = np.concatenate([known, proposed])
    _, first = np.unique(both, return_index=True)
    return both[np.sort(first)][len(known) :]


def _scan(draw: Draw, clients: int, drawn: Integers, weigh: Weigh) -> Integers:
    """What is missing, from all clients at once: those with the smallest e / weight, e ~ Exp(1).

    References:
        Efraimidis, Spirakis, "Weighted random sampling with a reservoir", Information Processing
        Letters 97, 2006.
    """
    rest: Bits = np.ones(clients, np.bool_)
    rest[drawn] = False
    free = np.flatnonzero(rest)
    free = free[draw.available(free)]
    keys = draw.generator.exponential(size=len(free)) / weigh(free)
    missing = min(draw.size - len(drawn), len(free))
    if missing == 0:
        return free[:0]
    first = np.argpartition(keys, missing - 1)[:missing]
    return free[first[np.argsort(keys[first])]]
