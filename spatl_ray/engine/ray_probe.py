"""Measures on each kind of GPU of a Ray cluster how many actors share one best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from spatl_ray.config import Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.actors import extend_path
from spatl_ray.engine.capacity import GPU_MEMORY, SLACK, Kind, Resources, kind_of, share_of
from spatl_ray.engine.gpu_probe import Probe, Trial, explored
from spatl_ray.errors import SpatlError
from spatl_ray.logs import logger

log = logger(__name__)

MOST = 16
"""Actors on a GPU, however large it is: what they give by then is lost in their numbers."""

SECONDS = 2.0
"""That probes train at once."""

Get = Callable[..., Any]
"""What several actors answer, in the time in which they must have come up."""


@ray.remote
class ProbeActor:
    """A `Probe` in a process of its own."""

    def __init__(self, paths: Sequence[str]) -> None:
        extend_path(paths)  # before the data come: they may hold an own partition's transform

    def begin(self, experiment: Experiment, data: FederatedData) -> float:
        """Build everything and train once; tells the bytes of the GPU, 0 on a CPU."""
        self._probe = Probe(experiment, data)
        return self._probe.whole()

    def rate(self, seconds: float) -> float:
        """Samples a second."""
        return self._probe.rate(seconds)

    def memory(self, beside: int) -> float:
        """Bytes at most."""
        return self._probe.memory(beside)

    def close(self) -> None:
        """Leave nothing."""
        self._probe.close()


class GpuProbes:
    """Probes on one GPU of a node, more and more of them.

    Args:
        get: waits for actors.
        given: references of experiment and data.
        paths: that they import from.
        node: its name.
        most: how many there may be.
    """

    def __init__(
        self, get: Get, given: tuple[Any, Any], paths: Sequence[str], node: str, most: int
    ) -> None:
        self._get, self._given, self._paths = get, given, paths
        actor: Any = ProbeActor
        # Ray puts a fraction where the least is left, so that all of them are on one GPU.
        self._actor = actor.options(
            num_cpus=0,
            num_gpus=share_of(most),
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        self._actors: list[Any] = []
        self._begun: list[Any] = []
        self.whole = 0.0

    def begin(self, count: int) -> None:
        """Have so many of them."""
        new = [self._actor.remote(self._paths) for _ in range(count - len(self._actors))]
        self._actors += new
        self.whole = max([self.whole, *self._get([a.begin.remote(*self._given) for a in new])])
        self._begun += new

    def measure(self, count: int) -> Trial | None:
        """Try so many at once; None if they do not come up beside each other.

        Raises:
            SpatlError: not even one does.
        """
        try:
            return self._measured(count)
        except SpatlError as error:
            if count == 1:
                raise
            log.warning("%d actors on a GPU were tried, and failed: %s", count, error)
            return None

    def _measured(self, count: int) -> Trial:
        self.begin(count)
        rates = self._get([actor.rate.remote(SECONDS) for actor in self._actors])
        memories = self._get([actor.memory.remote(count) for actor in self._actors])
        return Trial(count, sum(rates), max(memories))

    def close(self) -> None:
        """End them; one that waits for its GPU would not answer."""
        with suppress(SpatlError):
            self._get([actor.close.remote() for actor in self._begun])
        for actor in self._actors:
            ray.kill(actor)


def measured(
    get: Get,
    experiment: Experiment,
    data: FederatedData,
    paths: Sequence[str],
    nodes: Mapping[str, Resources],
    known: Mapping[Kind, object],
) -> dict[Kind, tuple[list[Trial], float]]:
    """What was tried on each kind of GPU that is not known yet, and the bytes of such a GPU.

    Args:
        get: waits for actors.
        experiment, data: what is trained.
        paths: that actors import from.
        nodes: the cluster's, by name.
        known: the kinds that were measured before.

    Raises:
        SpatlError: not even one actor runs on such a GPU.
    """
    found: dict[Kind, tuple[list[Trial], float]] = {}
    given = (ray.put(experiment), ray.put(data))
    for name, node in nodes.items():
        kind = kind_of(node)
        if not node.get("GPU") or kind in known or kind in found:
            continue
        most = _most(experiment.engine.num_cpus, node)
        probes = GpuProbes(get, given, paths, name, most)
        try:
            probes.begin(1)
            memory = _memory(node, probes.whole)
            found[kind] = explored(probes.measure, memory, most), memory
        finally:
            probes.close()
    return found


def _most(cpus: float, node: Resources) -> int:
    """Actors that a GPU's share of its node's CPUs allows, up to `MOST`, but one at least."""
    held = node.get("CPU", 0.0) / node["GPU"] / cpus if cpus else MOST
    return max(1, min(MOST, math.floor(held + SLACK)))


def _memory(node: Resources, whole: float) -> float:
    """Bytes of one of a node's GPUs: as the node says, or the GPU; else its share of the node's own."""
    return node.get(GPU_MEMORY) or whole or node.get("memory", math.inf) / node["GPU"]
