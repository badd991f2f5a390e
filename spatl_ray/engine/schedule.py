"""Who takes part in a round, with which weight, and on which worker."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from spatl_ray import seeding
from spatl_ray.aggregation.masked import Weights
from spatl_ray.arrays import Doubles, Integers
from spatl_ray.config import Experiment
from spatl_ray.federation.availability import newcomers
from spatl_ray.parameters import Arrays

ROUNDING = 1e-9
"""Of a sum of costs, relatively."""


def sample_panel(experiment: Experiment) -> Integers:
    """The fixed evaluation panel: distinct clients, in ascending order."""
    size = min(experiment.evaluation.panel, experiment.clients)
    generator = seeding.generator(experiment.seed, "panel")
    return np.sort(generator.choice(experiment.clients, size, replace=False))


def objective_weights(experiment: Experiment, samples: Integers) -> Doubles:
    """p_i over all clients, shape (clients,): n_i / n, or 1 / N; of newcomers 0, and they are not counted.

    Args:
        samples: training samples of each client.
    """
    there = ~newcomers(experiment.availability, len(samples), experiment.seed)
    counted = there * (1 if experiment.objective == "uniform" else samples)
    shares: Doubles = counted / counted.sum()
    return shares


def cohort_weights(cohort: Integers, objective: Doubles, chance: Doubles) -> list[Weights]:
    """Each member's weight in the cohort, and its p_i.

    The weight is p_i / q_i over the cohort's sum: who is drawn more often counts less each time, so
    that the objective stays the same in expectation (Li et al., ICLR 2020, section 3.2).

    Args:
        cohort: the members.
        objective: p_i of all clients.
        chance: q_i of the members, up to a factor.
    """
    own = objective[cohort]
    corrected = own / chance
    total = corrected.sum()
    return [Weights(float(w / total), float(p)) for w, p in zip(corrected, own, strict=True)]


def assign(
    costs: Sequence[float],
    workers: int,
    homes: Sequence[int] | None = None,
    speeds: Sequence[float] | None = None,
) -> list[list[int]]:
    """Longest-processing-time-first: the dearest item to its home, or to who would end it first.

    An item goes home if that worker then ends within the mean T = sum of costs / sum of speeds; one that
    cannot is placed after all others. So nobody ends after T by more than (m - 1) / (sum of speeds) of an
    item, homes or not. Without homes the last one ends within 2 - 2/(m+1) of the best placement's, with
    equal speeds within 4/3 - 1/(3m).

    Args:
        costs: predicted cost of each item.
        workers: number of workers, m.
        homes: the worker at which each item is preferred, -1 for none.
        speeds: cost that each worker does in a unit of time, shape (m,); None for equal ones.

    Returns:
        For each worker the indices of its items, dearest first but for those that could not go home;
        some may be empty.

    References:
        Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969.
        Gonzalez, Ibarra, Sahni, "Bounds for LPT schedules on uniform processors", SIAM J. Comput. 6, 1977.
    """
    pace = [1.0] * workers if speeds is None else list(speeds)
    mean = sum(costs) / sum(pace) * (1 + ROUNDING)
    loads = Loads(pace)
    groups: list[list[int]] = [[] for _ in range(workers)]
    postponed = []
    order = sorted(range(len(costs)), key=lambda i: (-costs[i], i))
    for index in order:
        home, cost = -1 if homes is None else homes[index], costs[index]
        if home < 0:
            groups[loads.to_earliest(cost)].append(index)
        elif loads.of[home] + cost <= mean * pace[home]:
            loads.add(home, cost)
            groups[home].append(index)
        else:
            postponed.append(index)
    for index in postponed:
        groups[loads.to_earliest(costs[index])].append(index)
    return groups


class Loads:
    """What each worker has to do; of those of one speed, the least loaded is known at once.

    Args:
        speeds: of each worker.
    """

    def __init__(self, speeds: Sequence[float]) -> None:
        self.of = [0.0] * len(speeds)
        self._speeds = speeds
        self._heaps: dict[float, list[tuple[float, int]]] = {speed: [] for speed in speeds}
        for worker, speed in enumerate(speeds):
            self._heaps[speed].append((0.0, worker))

    def add(self, worker: int, cost: float) -> None:
        """Give a worker more."""
        self.of[worker] += cost
        heapq.heappush(self._heaps[self._speeds[worker]], (self.of[worker], worker))

    def to_earliest(self, cost: float) -> int:
        """Give it to the worker that would end it first, and say which one that is."""
        least = [(speed, *self._least(heap)) for speed, heap in self._heaps.items()]
        speed, _, worker = min(least, key=lambda of: ((of[1] + cost) / of[0], *of[1:]))
        heapq.heappop(self._heaps[speed])
        self.add(worker, cost)
        return worker

    def _least(self, heap: list[tuple[float, int]]) -> tuple[float, int]:
        """The least loaded worker of a heap, which stays in it."""
        while heap[0][0] != self.of[heap[0][1]]:
            heapq.heappop(heap)  # Its worker got more since.
        return heap[0]


class CostModel:
    """Predicted seconds of a client's round: a + b n, with n its training samples.

    a and b are fitted to measured seconds by least squares, in which a measurement of k rounds ago counts
    FADING^k. Before clients of different n were measured, the cost is n. Only placement depends on it.

    Args:
        samples: n of each client.
    """

    FADING = 0.9

    def __init__(self, samples: Integers) -> None:
        self._samples = samples.astype(np.float64)
        self._normal = np.zeros((2, 2))
        self._measured = np.zeros(2)

    def memory(self) -> Arrays:
        """What was learnt: the arrays themselves, by name."""
        return {"cost normal": self._normal, "cost measured": self._measured}

    def of(self, clients: Integers) -> Doubles:
        """Predicted cost of each."""
        n = self._samples[clients]
        fixed, slope = self._fitted()
        return fixed + slope * n

    def learn(self, clients: Integers, seconds: Doubles) -> None:
        """Take in a round's measurements."""
        rows = np.column_stack([np.ones(len(clients)), self._samples[clients]])
        self._normal[...] = self.FADING * self._normal + rows.T @ rows
        self._measured[...] = self.FADING * self._measured + rows.T @ seconds

    def _fitted(self) -> tuple[float, float]:
        """a and b, neither negative."""
        (count, total), (_, squares) = self._normal.tolist()
        spread = count * squares - total**2
        if spread <= 1e-9 * count * squares:
            return 0.0, 1.0
        fixed, slope = np.linalg.solve(self._normal, self._measured).tolist()
        if slope <= 0:
            return 1.0, 0.0
        return (fixed, slope) if fixed > 0 else (0.0, 1.0)
