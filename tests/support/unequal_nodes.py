"""Runs on Ray clusters of unequal nodes, each with its driver in a process of its own.

python tests/support/unequal_nodes.py '{"folder": ..., "algorithm": ..., "fields": ..., "nodes": [{...}]}'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from identity import small

from spatl_ray import config, run
from spatl_ray.algorithms.base import ClientView
from spatl_ray.algorithms.fedavg import FedAvg
from spatl_ray.config import Experiment
from spatl_ray.training.local import LocalTask

SECONDS = 280


class PacedFedavg(FedAvg):
    """Clients sleep as long as their node says in `PACE`: that decides how fast it is, not the machine."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(config.BUILT_IN["fedavg"]())

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        time.sleep(float(os.environ.get("PACE", 0.0)))
        return super().tasks(view)


PACED = {"name": "unequal_nodes:PacedFedavg"}


def ran(
    folder: Path,
    algorithm: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]],
    **fields: Any,
) -> Experiment:
    """Run `identity.small` on a head without CPUs and these nodes.

    Args:
        folder: of the results.
        algorithm: its name and options.
        nodes: arguments of `Cluster.add_node`.
        fields: of the experiment.
    """
    given = {
        "folder": str(folder),
        "algorithm": dict(algorithm),
        "nodes": list(nodes),
        "fields": fields,
    }
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    own.pop("CUDA_VISIBLE_DEVICES", None)  # Ray refuses to pretend GPUs where this hides them.
    command = [sys.executable, __file__, json.dumps(given)]
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return small(folder, algorithm, **fields)


def _go(given: Mapping[str, Any]) -> None:
    """What happens in the driver's process."""
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for node in given["nodes"]:
        cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    run(small(Path(given["folder"]), given["algorithm"], **given["fields"]))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    _go(json.loads(sys.argv[1]))
