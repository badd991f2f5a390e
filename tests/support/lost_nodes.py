"""Runs on Ray clusters of several nodes that are lost, each with its driver in a process of its own.

python tests/support/lost_nodes.py '{"folder": ..., "name": ..., "fields": ..., "nodes": [2, 2]}'
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from broken_off import Watch, experiment_of
from processes import children

from spatl_ray import resume, run
from spatl_ray.config import Experiment
from spatl_ray.engine.folders import state_folder

LOST = "lost on purpose:"

SECONDS = 300
"""After which a driver hangs."""


class Lose(Watch):
    """Loses something in the middle of a round: all processes are killed, none is asked to end.

    Args:
        cluster: the Ray cluster; the driver is on its first node, the head.
        nodes: its nodes.
        lost: what is lost in which round: a `node`, with its disk if that is its own; a node, of which
            another `kind` takes the place; the `head`, where Ray's own records are; the head's `store` alone,
            which is its raylet; or `all`, with the driver.
        disks: folder of the nodes' folders of states.
    """

    def __init__(
        self, cluster: Any, nodes: Sequence[Any], lost: Mapping[str, str], disks: Path
    ) -> None:
        super().__init__()
        self._cluster, self._nodes, self._lost, self._disks = cluster, nodes, dict(lost), disks

    def clients_done(self, round_: int, done: int, cohort: int) -> None:
        what = self._lost.pop(str(round_), None)
        if what is not None:
            print(LOST, what, flush=True)
        if what == "kind":
            self._cluster.add_node(num_cpus=1, env_vars={"ATEN_CPU_CAPABILITY": "default"})
        if what in ("node", "kind"):
            self._lose(self._nodes[1])
            shutil.rmtree(self._disks / self._nodes[1].node_id, ignore_errors=True)
        elif what == "store":
            self._nodes[0].kill_raylet(check_alive=False)
        elif what is not None:
            for node in self._nodes[:1] if what == "head" else self._nodes:
                node.kill_all_processes(check_alive=False, allow_graceful=False)
        if what == "all":
            os.kill(os.getpid(), signal.SIGKILL)

    def _lose(self, node: Any) -> None:
        """Kill a node with its workers, which else live until they notice that their raylet is gone."""
        ((raylet,),) = (node.all_processes[kind] for kind in node.all_processes if kind == "raylet")
        workers = children(raylet.process.pid)
        self._cluster.remove_node(node, allow_graceful=False)
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


def told(
    folder: Path,
    name: str,
    fields: Mapping[str, Any],
    nodes: Sequence[int],
    lost: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """Run or resume an experiment on a new cluster; returns its rounds and events, or how it failed.

    Args:
        folder: of the results.
        name: of the algorithm.
        fields: of the experiment.
        nodes: CPUs of each node.
        lost: see `Lose`; the process ends with all but a node.
    """
    given = {
        "folder": str(folder),
        "name": name,
        "fields": fields,
        "nodes": nodes,
        "lost": lost or {},
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(given)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert lost is None or LOST in done.stdout, done.stderr[-4000:]
    if lost is not None and set(lost.values()) != {"node"}:
        assert done.returncode == (-signal.SIGKILL if "all" in lost.values() else 1), done.stderr
        return {"error": done.stderr}
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(next(line for line in done.stdout.splitlines() if line[:1] == "{")))


def _go(given: Mapping[str, Any]) -> None:
    """What happens in the driver's process."""
    import ray
    from ray.cluster_utils import Cluster

    first, *others = given["nodes"]
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": first, "include_dashboard": False}
    )
    nodes = [cluster.head_node, *(cluster.add_node(num_cpus=cpus) for cpus in others)]
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    folder = Path(given["folder"])
    experiment = experiment_of(folder, given["name"], **given["fields"])
    watch = Lose(cluster, nodes, given["lost"], state_folder(experiment))
    _run_or_resume(experiment, watch)
    print(json.dumps({"rounds": watch.rounds, "events": watch.events}, default=str))
    ray.shutdown()
    cluster.shutdown()


def _run_or_resume(experiment: Experiment, watch: Watch) -> None:
    folder = Path(experiment.results.folder)
    if (folder / "runs").exists():
        resume(folder, experiment.run_id, callbacks=[watch])
    else:
        run(experiment, callbacks=[watch])


if __name__ == "__main__":
    _go(json.loads(sys.argv[1]))
