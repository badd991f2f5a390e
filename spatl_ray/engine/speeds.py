"""How fast nodes are, as their workers' clients tell: placement follows it, no number does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

FADING = 0.9
"""What a round's measurement counts one round later."""

BAND = 0.1
"""Speeds in use change only when what was measured differs by more, relatively.

Measured speeds of equal nodes scatter by a few percent from round to round. Following them would move
clients away from the worker that has their state in memory, for nothing.
"""


class Speeds:
    """Each worker's speed, relative to the mean: that of its node, equal at first.

    A node's speed is the sum of its clients' predicted costs over the sum of their measured seconds, in
    which a round of k rounds ago counts `FADING`^k. It is its node's because the workers of a node share its
    processors, and because more clients make the measurement steadier: on one node all are equal, always.
    It is of these processes, and no checkpoint holds it: another cluster has other nodes.

    Args:
        nodes: of each worker.
    """

    def __init__(self, nodes: Sequence[object]) -> None:
        self._nodes = list(nodes)
        self._predicted = dict.fromkeys(self._nodes, 0.0)
        self._measured = dict.fromkeys(self._nodes, 0.0)
        self._used = dict.fromkeys(self._nodes, 1.0)

    def of_workers(self) -> list[float]:
        """The speed of each worker that placement goes by; all 1 for equal nodes."""
        return [self._used[node] for node in self._nodes]

    def learn(self, told: Iterable[tuple[int, float, float]]) -> None:
        """Take in a round's measurements.

        Args:
            told: of each client its worker, its predicted cost in any unit, and its measured seconds.
        """
        costs: dict[object, float] = defaultdict(float)
        seconds: dict[object, float] = defaultdict(float)
        for worker, cost, took in told:
            costs[self._nodes[worker]] += cost
            seconds[self._nodes[worker]] += took
        if not (sum(costs.values()) > 0 and sum(seconds.values()) > 0):
            return
        unit = sum(seconds.values()) / sum(costs.values())
        for node in self._used:
            self._predicted[node] = FADING * self._predicted[node] + unit * costs[node]
            self._measured[node] = FADING * self._measured[node] + seconds[node]
        self._follow()

    def _follow(self) -> None:
        """Use what was measured, if a node differs enough from what is used."""
        found = self._relative()
        off = [abs(speed / self._used[node] - 1) for node, speed in found.items()]
        if max(off) > BAND:
            self._used = found

    def _relative(self) -> dict[object, float]:
        """Measured speeds, over their mean; who was not measured yet has the mean."""
        known = {
            node: self._predicted[node] / seconds
            for node, seconds in self._measured.items()
            if seconds > 0 and self._predicted[node] > 0
        }
        if not known or max(known.values()) <= (1 + BAND) * min(known.values()):
            return dict.fromkeys(self._used, 1.0)
        mean = sum(known.values()) / len(known)
        return {node: known.get(node, mean) / mean for node in self._used}
