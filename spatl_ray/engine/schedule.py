"""How many workers there are; who takes part in a round, with which weight, and on which worker."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from spatl_ray import seeding
from spatl_ray.aggregation.masked import Weights
from spatl_ray.arrays import Doubles, Integers
from spatl_ray.config import Engine, Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.parameters import Arrays

ROUNDING = 1e-9
"""Of a sum of costs, relatively."""


def sample_panel(experiment: Experiment) -> Integers:
    """The fixed evaluation panel: distinct clients, in ascending order."""
    size = min(experiment.evaluation.panel, experiment.clients)
    generator = seeding.generator(experiment.seed, "panel")
    return np.sort(generator.choice(experiment.clients, size, replace=False))


def objective_weights(experiment: Experiment, samples: Integers) -> Doubles:
    """p_i over all clients, shape (clients,): n_i / n, or 1 / N.

    Args:
        samples: training samples of each client.
    """
    if experiment.objective == "uniform":
        return np.full(len(samples), 1 / len(samples))
    shares: Doubles = samples / samples.sum()
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
    costs: Sequence[float], workers: int, homes: Sequence[int] | None = None
) -> list[list[int]]:
    """Longest-processing-time-first: the dearest item to its home, or to the least loaded worker.

    An item goes home if that worker's load stays within the mean; one that cannot is placed after all
    others. So no load is over the mean by more than (1 - 1/m) of an item, homes or not.

    Args:
        costs: predicted cost of each item.
        workers: number of workers, m.
        homes: the worker at which each item is preferred, -1 for none.

    Returns:
        For each worker the indices of its items, dearest first but for those that could not go home;
        some may be empty.

    References:
        Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969.
    """
    most = sum(costs) / workers * (1 + ROUNDING)
    loads = Loads(workers)
    groups: list[list[int]] = [[] for _ in range(workers)]
    postponed = []
    order = sorted(range(len(costs)), key=lambda i: (-costs[i], i))
    for index in order:
        home, cost = -1 if homes is None else homes[index], costs[index]
        if home < 0:
            groups[loads.to_least(cost)].append(index)
        elif loads.of[home] + cost <= most:
            loads.add(home, cost)
            groups[home].append(index)
        else:
            postponed.append(index)
    for index in postponed:
        groups[loads.to_least(costs[index])].append(index)
    return groups


class Loads:
    """What each worker has to do."""

    def __init__(self, workers: int) -> None:
        self.of = [0.0] * workers
        self._heap = [(0.0, worker) for worker in range(workers)]

    def add(self, worker: int, cost: float) -> None:
        """Give a worker more."""
        self.of[worker] += cost
        heapq.heappush(self._heap, (self.of[worker], worker))

    def to_least(self, cost: float) -> int:
        """Give it to the least loaded worker, and say which one that is."""
        while self._heap[0][0] != self.of[self._heap[0][1]]:
            heapq.heappop(self._heap)  # Its worker got more since.
        _, worker = heapq.heappop(self._heap)
        self.add(worker, cost)
        return worker


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


def most_workers(engine: Engine, resources: Mapping[str, float]) -> int:
    """As many ClientActors as a cluster's CPUs and GPUs hold; arguments are those of `count_workers`."""
    needs = _needs(engine)
    fits = [math.floor(resources.get(k, 0.0) / need + 1e-9) for k, need in needs.items() if need]
    return min(fits) if fits else os.cpu_count() or 1


def _needs(engine: Engine) -> dict[str, float]:
    """Of a ClientActor, by Ray's names."""
    return {"CPU": engine.num_cpus, "GPU": engine.num_gpus}


def count_workers(engine: Engine, resources: Mapping[str, float], fewer: bool = False) -> int:
    """The number of ClientActors: as configured, or as many as the cluster's CPUs and GPUs hold.

    Args:
        engine: the config.
        resources: of the cluster, by Ray's names.
        fewer: take as many as fit if not all do.

    Raises:
        ConfigError: the cluster cannot hold them.
    """
    needs, most = _needs(engine), most_workers(engine, resources)
    wanted = engine.workers or most
    if fewer:
        wanted = min(wanted, most)
    if engine.num_gpus and not resources.get("GPU"):
        raise ConfigError(
            f"engine.num_gpus must be 0 on a cluster without a GPU, got {engine.num_gpus:g}"
        )
    if most < max(1, wanted):
        has = ", ".join(
            f"{resources.get(kind, 0):g} {kind}" for kind, need in needs.items() if need
        )
        raise ConfigError(
            f"engine.workers must fit the cluster ({has}): with num_cpus={engine.num_cpus:g} and "
            f"num_gpus={engine.num_gpus:g} at most {most} do, got {engine.workers or 1}"
        )
    return wanted
