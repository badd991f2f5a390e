"""What a run takes of a cluster: one process, or a process and its client actors."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from spatl_ray.config import Experiment
from spatl_ray.engine.capacity import gpus_of
from spatl_ray.errors import ConfigError, EngineError

Bundle = dict[str, float]

CHECKOUT = str(Path(__file__).resolve().parents[1])
"""Where workers find this package."""

STARTS = 3
"""How often Ray is started before that is given up."""


def bundles(experiment: Experiment) -> list[Bundle]:
    """The resources of a run, a bundle a process.

    On the serial backend all is one process. Through Ray the first process only waits for the client
    actors, so that it takes nothing; the aggregator takes nothing either.

    Raises:
        ConfigError: a process takes nothing, so that any number would run at once, or what has to be
            measured first.
    """
    engine = experiment.engine
    if engine.actors_per_gpu == "auto":
        raise ConfigError(
            "engine.actors_per_gpu must be a number in a search or a sweep, which reserve before anything "
            'can be measured, got auto: event "shared GPUs" of a single run tells it'
        )
    own = {"CPU": engine.num_cpus, "GPU": gpus_of(engine)}
    one = {name: amount for name, amount in own.items() if amount}
    if not one:
        raise ConfigError(
            "engine.num_cpus must be above 0 in a search or a sweep without engine.num_gpus, got 0: they "
            "run as many at once as there is room for"
        )
    if engine.backend == "serial":
        return [one]
    return [{}, *([one] * (engine.workers or 1))]


def at_once(experiment: Experiment, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many such runs a cluster holds at once.

    Args:
        experiment: of the runs.
        nodes: the resources of each node; a bundle lies on one of them.

    Raises:
        ConfigError, EngineError: none.
    """
    wanted = [bundle for bundle in bundles(experiment) if bundle]
    processes = sum(_held(wanted[0], node) for node in nodes)
    most = processes // len(wanted)
    if most < 1:
        raise EngineError(
            f"a run must fit into the cluster: it takes {len(wanted)} times {wanted[0]}, each on one node, "
            f"and the nodes have {[_of(node, wanted[0]) for node in nodes]}"
        )
    return most


def _held(bundle: Bundle, node: Mapping[str, float]) -> int:
    """How many processes a node holds."""
    return min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in bundle.items())


def _of(node: Mapping[str, float], bundle: Bundle) -> Bundle:
    return {name: node.get(name, 0.0) for name in bundle}


KNOCK_SECONDS = 10.0
"""In which a cluster must answer."""


@contextmanager
def cluster(address: str | None) -> Iterator[Sequence[Mapping[str, float]]]:
    """Join a Ray cluster, or start Ray on this machine; tells the resources of each node.

    Raises:
        EngineError: it cannot be reached, or Ray cannot start.
    """
    import ray

    if ray.is_initialized():  # who started it ends it
        yield _nodes()
        return
    _connect(address)
    try:
        yield _nodes()
    finally:
        ray.shutdown()


def _nodes() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _knock(address: str) -> None:
    """Refuse an address where nobody answers, for which Ray itself waits many minutes.

    Raises:
        EngineError: it is such an address.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit()):
        return  # `auto`, which Ray looks up
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise EngineError(f"--address {address!r} cannot be reached: {error}") from error


def _connect(address: str | None) -> None:
    """Join Ray or start it; on a busy machine it may miss its own 30 seconds, and is started again."""
    import ray
    from ray.job_config import JobConfig

    if address:
        _knock(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    for left in reversed(range(1 if address else STARTS)):
        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # Or workers would search the current folder before Python's own.
                job_config=JobConfig(_client_job=True, _py_driver_sys_path=[CHECKOUT]),
            )
            return
        except Exception as error:  # a bare one, if it does not come up in time
            ray.shutdown()
            if not left:
                where = (
                    f"--address {address!r} cannot be reached" if address else "Ray cannot start"
                )
                raise EngineError(f"{where}: {error}") from error
