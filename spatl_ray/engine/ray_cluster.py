"""The Ray cluster as the driver sees it: joined or started here, and watched while it is waited for."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import (
    GetTimeoutError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    WorkerCrashedError,
)
from ray.job_config import JobConfig
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from spatl_ray.config import Engine
from spatl_ray.engine.capacity import (
    Kind,
    Resources,
    Shares,
    asked,
    count_workers,
    gpus_of,
    most_workers,
    seats,
    takes_anything,
)
from spatl_ray.errors import EngineError, LostError, SpatlError

GONE = (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)
"""What Ray raises when a process or node is gone that cannot be started again, or what it held."""

WATCH_SECONDS = 5.0
"""After which who waits for workers asks whether their nodes are there."""


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that starts meanwhile listens to this machine only, as it does on macOS.

    Elsewhere it listens on all interfaces, and no option of `ray.init` changes that: it turns 127.0.0.1
    into the address by which others reach the machine.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


class RayCluster:
    """Joins or starts Ray, and waits for actors with this package's errors.

    Args:
        engine: the config.

    Attributes:
        workers: number of ClientActors that there should be.
        nodes: the name of each one's node, once it is known.
        measured: actors on a GPU of each kind, where that is not the config's.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_own = False
        self._group: Any = None
        self.measured: dict[Kind, int] = {}
        self.workers = 0
        self.nodes: list[object] = []

    def connect(self) -> None:
        """Join the given cluster, or Ray as this process already knows it, or start it here."""
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # By default Ray's workers run at the lowest priority but four: on a machine that does
        # anything else, actors then need minutes to start (seen: more than five).
        os.environ.setdefault("RAY_worker_niceness", "0")
        address = self._engine.address
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            with nullcontext() if address else _on_loopback():
                ray.init(
                    address=address or "local",
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    # Or workers would search the current folder before Python's own.
                    job_config=JobConfig(_client_job=True),
                )
        except Exception as error:  # of many kinds: a timeout is one of no special kind
            raise EngineError(
                f"engine.address {address!r} cannot be reached or Ray cannot start: {error}"
            ) from error
        self._is_own = True
        # Ray ends the process on SIGTERM; who called may want to end the run first.
        if callable(on_sigterm) and signal.getsignal(signal.SIGTERM) is not on_sigterm:
            signal.signal(signal.SIGTERM, on_sigterm)

    def there(self) -> dict[str, Resources]:
        """The resources of each node that is there, by its name.

        Raises:
            EngineError: Ray does not answer.
        """
        try:
            nodes = ray.nodes()
        except RayError as error:
            raise EngineError(f"the Ray cluster does not answer: {error}") from error
        return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}

    def places(self, fewer: bool, say: Callable[[str], None]) -> list[dict[str, Any]]:
        """Ray's options of each worker that there is to be, waiting for a cluster that grows if need be.

        Args:
            fewer: than configured, if not all fit but one.
            say: told what is waited for.

        Raises:
            ConfigError: the cluster cannot hold them.
            EngineError: it did not grow in time.
        """
        shares, there = self._shares(), self.there()
        most, wanted = most_workers(shares, list(there.values())), self._engine.workers or 1
        grows = self._engine.wait_for_workers > 0 and takes_anything(self._engine)
        if grows and most < (1 if fewer else wanted):
            self.workers = wanted
            return self._grown(most, say)
        self.workers = count_workers(shares, list(there.values()), fewer)
        if self._engine.actors_per_gpu != "auto":
            return [{"num_gpus": gpus_of(self._engine)} for _ in range(self.workers)]
        return [
            {"num_gpus": seat.gpus, "scheduling_strategy": _on(seat.node)}
            for seat in seats(shares, there, self.workers)
        ]

    def _shares(self) -> Shares:
        return Shares(self._engine, self.measured)

    def _grown(self, most: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
        """Reserve all workers' resources, which Ray's autoscaler sees as asked for, and wait for them.

        Workers are packed onto few nodes, unless a second node is to mirror states.
        """
        engine, limit = self._engine, self._engine.wait_for_workers
        needs = {"CPU": engine.num_cpus, "GPU": gpus_of(engine)}
        bundle = {kind: need for kind, need in needs.items() if need}
        say(f"waiting up to {limit:g} s for room for {self.workers} workers: {most} fit now")
        strategy = "SPREAD" if engine.state_mirror else "PACK"
        self._group = placement_group([dict(bundle) for _ in range(self.workers)], strategy)
        end = time.monotonic() + limit
        while not self._group.wait(min(WATCH_SECONDS, max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end:
                self._give_back()
                now = most_workers(self._shares(), list(self.there().values()))
                raise EngineError(
                    f"engine.workers must fit the cluster within engine.wait_for_workers={limit:g} seconds: "
                    f"with {asked(engine)} at most {now} do, got {self.workers}"
                )
        return [
            {
                "num_gpus": gpus_of(engine),
                "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, index),
            }
            for index in range(self.workers)
        ]

    def _give_back(self) -> None:
        """Ask for nothing any more."""
        group, self._group = self._group, None
        if group is not None and ray.is_initialized():
            remove_placement_group(group)

    def close(self, actors: Sequence[Any]) -> None:
        """Stop actors, and Ray if it was started here."""
        self.workers, self.nodes = 0, []
        for actor in actors:
            if actor is not None and ray.is_initialized():
                ray.kill(actor)
        self._give_back()
        if self._is_own:
            ray.shutdown()
            self._is_own = False

    def wait(self, references: list[Any]) -> tuple[list[Any], list[Any]]:
        """The next of what is waited for that is there, and all others."""
        while True:
            ready, others = ray.wait(references, num_returns=1, timeout=WATCH_SECONDS)
            if ready:
                return ready, others
            self._check_nodes()

    def get(self, references: Any, limit: float = math.inf) -> Any:
        """`ray.get` with this package's errors.

        Raises:
            TimeoutError: it took longer than `limit` seconds.
            SpatlError: what an actor raised; LostError for one that is gone.
        """
        end = time.monotonic() + limit
        while True:
            left = max(0.0, end - time.monotonic())
            try:
                return ray.get(references, timeout=min(WATCH_SECONDS, left))
            except GetTimeoutError:
                if left <= WATCH_SECONDS:
                    raise
                self._check_nodes()
            except RayError as error:
                raise _translated(error) from error

    def _check_nodes(self) -> None:
        """Raise if Ray would wait for ever for a node that is gone to come back.

        Raises:
            LostError: a node of the workers is gone, or the nodes that are left cannot hold all workers.
            EngineError: Ray does not answer.
        """
        there = self.there()
        gone = sorted(set(map(str, self.nodes)) - there.keys())
        if gone:
            raise LostError(f"node(s) {', '.join(gone)} of the Ray cluster are gone")
        most = most_workers(self._shares(), list(there.values()))
        if most < self.workers:
            raise LostError(f"the Ray cluster holds {most} of {self.workers} workers by now")


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    """On this node and no other."""
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _translated(error: RayError) -> SpatlError:
    """This package's error for one of Ray's, or for what that says was the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SpatlError):
            return cause
        if isinstance(cause, GONE):
            return LostError(f"a Ray actor, node or object is gone: {cause}")
        cause = getattr(cause, "cause", None)
    return EngineError(f"a Ray actor failed: {error}")
