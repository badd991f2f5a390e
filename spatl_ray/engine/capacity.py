"""How many workers a cluster's nodes hold, and where each of them lies."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spatl_ray.config import Engine
from spatl_ray.errors import ConfigError

Resources = Mapping[str, float]
"""Of a node, by Ray's names."""

GPU_MEMORY = "spatl_gpu_memory"
"""A node's own resource that tells the bytes of one of its GPUs, where its driver cannot.

`ray start --num-gpus=1 --resources='{"spatl_gpu_memory": 16e9}'`
"""

SLACK = 1e-9
"""For what a sum of fractions is off by."""

Kind = tuple[str, ...]
"""What nodes share on whose GPUs as many workers do best: type and memory of a GPU."""


def kind_of(node: Resources) -> Kind:
    """The kind of a node's GPUs; nothing on the node tells how large they are, all count as one kind."""
    types = sorted(name for name in node if name.startswith("accelerator_type:"))
    memory = [f"{node[GPU_MEMORY]:g} bytes"] if GPU_MEMORY in node else []
    return (*types, *memory)


def share_of(actors: int) -> float:
    """The part of a GPU of each of so many actors, as Ray counts: in ten-thousandths, rounded down."""
    return math.floor(10_000 / actors) / 10_000


@dataclass(frozen=True)
class Shares:
    """What a worker takes of a GPU: the same everywhere, or by kind if that was measured.

    Args:
        engine: the config.
        measured: actors on a GPU of each kind, with `actors_per_gpu: auto`.
    """

    engine: Engine
    measured: Mapping[Kind, int]

    def on(self, node: Resources) -> float:
        """GPUs that a worker reserves on a node; infinitely many where it cannot be."""
        if self.engine.actors_per_gpu != "auto":
            return gpus_of(self.engine)
        actors = self.measured.get(kind_of(node))
        return math.inf if actors is None else share_of(actors)

    def held(self, node: Resources) -> int:
        """How many workers a node holds; a fraction lies on one GPU."""
        gpus, cpus = self.on(node), self.engine.num_cpus
        fits = []
        if cpus:
            fits.append(math.floor(node.get("CPU", 0.0) / cpus + SLACK))
        if 0 < gpus < 1:
            fits.append(math.floor(1 / gpus + SLACK) * int(node.get("GPU", 0.0)))
        elif gpus:
            fits.append(math.floor(node.get("GPU", 0.0) / gpus + SLACK))
        return min(fits) if fits else os.cpu_count() or 1


def gpus_of(engine: Engine) -> float:
    """GPUs that each worker reserves, where the config says it."""
    if isinstance(engine.actors_per_gpu, int):
        return share_of(engine.actors_per_gpu)
    return engine.num_gpus


def needs_gpu(engine: Engine) -> bool:
    """Whether a worker reserves any of a GPU."""
    return engine.num_gpus > 0 or engine.actors_per_gpu is not None


def takes_anything(engine: Engine) -> bool:
    """Whether a worker reserves anything at all: where none does, nodes hold any number."""
    return engine.num_cpus > 0 or needs_gpu(engine)


def most_workers(shares: Shares, nodes: Sequence[Resources]) -> int:
    """As many ClientActors as the nodes of a cluster hold; arguments are those of `count_workers`."""
    if not takes_anything(shares.engine):
        return os.cpu_count() or 1
    return sum(map(shares.held, nodes))


def count_workers(shares: Shares, nodes: Sequence[Resources], fewer: bool = False) -> int:
    """The number of ClientActors: as configured, or as many as the cluster's CPUs and GPUs hold.

    Args:
        shares: what each takes.
        nodes: resources of the cluster's nodes.
        fewer: take as many as fit if not all do.

    Raises:
        ConfigError: the cluster cannot hold them.
    """
    engine, most = shares.engine, most_workers(shares, nodes)
    wanted = engine.workers or most
    if fewer:
        wanted = min(wanted, most)
    if needs_gpu(engine) and not any(node.get("GPU") for node in nodes):
        field, value, none = "num_gpus", f"{engine.num_gpus:g}", "0"
        if engine.actors_per_gpu is not None:
            field, value, none = "actors_per_gpu", str(engine.actors_per_gpu), "null"
        raise ConfigError(f"engine.{field} must be {none} on a cluster without a GPU, got {value}")
    if most < max(1, wanted):
        raise ConfigError(
            f"engine.workers must fit the cluster ({_told(engine, nodes)}): with {asked(engine)} at most "
            f"{most} do, got {engine.workers or 1}"
        )
    return wanted


def asked(engine: Engine) -> str:
    """What a worker takes, in the config's words."""
    if engine.actors_per_gpu is not None:
        return f"num_cpus={engine.num_cpus:g} and actors_per_gpu={engine.actors_per_gpu}"
    return f"num_cpus={engine.num_cpus:g} and num_gpus={engine.num_gpus:g}"


def _told(engine: Engine, nodes: Sequence[Resources]) -> str:
    """The sums of what workers need, and how many nodes they are on."""
    kinds = [
        kind for kind, needed in (("CPU", engine.num_cpus), ("GPU", needs_gpu(engine))) if needed
    ]
    sums = ", ".join(f"{sum(node.get(kind, 0) for node in nodes):g} {kind}" for kind in kinds)
    return sums if len(nodes) < 2 else f"{sums} on {len(nodes)} nodes"


@dataclass(frozen=True)
class Seat:
    """Where a worker lies: its node and its part of a GPU there."""

    node: str
    gpus: float


def seats(shares: Shares, nodes: Mapping[str, Resources], count: int) -> list[Seat]:
    """Where so many workers lie: each GPU has one before any has two, the largest nodes first.

    Args:
        shares: what each takes.
        nodes: resources of each node, by its name.
        count: of the workers, not more than fit.
    """
    turns = []
    for name, node in nodes.items():
        gpus = max(1, int(node.get("GPU", 0.0)))
        turns += [(index // gpus, -gpus, name) for index in range(shares.held(node))]
    return [Seat(name, shares.on(nodes[name])) for _, _, name in sorted(turns)[:count]]
