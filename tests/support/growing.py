"""A Ray cluster on this machine that grows and shrinks: Ray's own autoscaler with its fake provider.

Ray's `AutoscalingCluster` would do, but begins and ends with `ray stop --force`, which ends every Ray of the
machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import children, parent

HEAD_ID = "f" * 51 + "00000"
"""What the fake provider calls the head."""

IDLE_MINUTES = 0.1
"""After which a node without work ends."""

SECONDS = 120.0
"""In which a node is there, or gone."""


@dataclass(frozen=True)
class Growing:
    """A cluster whose head has no CPU.

    Attributes:
        address: what `engine.address` names.
        environment: of who joins it; it has the cluster's token.
        head: the process that started the head's others.
    """

    address: str
    environment: dict[str, str]
    head: int

    def alive(self) -> list[float]:
        """CPUs of each node that is there, without the head."""
        code = (
            "import json, ray; ray.init(address={!r}, log_to_driver=False, logging_level='ERROR'); "
            "print(json.dumps([n['Resources'].get('CPU', 0) for n in ray.nodes() if n['Alive']]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code.format(self.address)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return [cpus for cpus in json.loads(done.stdout.splitlines()[-1]) if cpus]

    def lose_a_node(self) -> None:
        """Kill one that is not the head, with all that runs on it, as a cloud takes a spot machine away."""
        raylet, *_ = (
            pid
            for pid in _descendants(self.head)
            if parent(pid) != self.head and _command(pid).endswith("/raylet")
        )
        for pid in [raylet, *_descendants(raylet)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def shrinks(self) -> bool:
        """Whether all but the head end once they are idle."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if not self.alive():
                return True
            time.sleep(2)
        return False


@contextmanager
def growing(folder: Path, node: Mapping[str, float], most: int) -> Iterator[Growing]:
    """A head without CPUs that starts nodes as they are asked for.

    Args:
        folder: for its files.
        node: resources of such a node.
        most: nodes.
    """
    port = _free_port()
    address = f"{_own_address()}:{port}"
    file = folder / "cluster.json"
    file.write_text(json.dumps(_config(address, node, most)))
    log = (folder / "head.log").open("wb")
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", f"--port={port}", "--num-cpus=0", "--block"]
    command += [f"--autoscaling-config={file}", "--include-dashboard=false"]
    short = tempfile.mkdtemp()  # sockets' paths must be short
    command += [
        f"--temp-dir={short}",
        f"--ray-client-server-port={_free_port()}",
        "--dashboard-agent-listen-port=0",
    ]
    token = folder / "token"
    token.write_text("a" * 64)
    joining = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment = {
        **joining,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        _wait_for(address, process)
        yield Growing(address, joining, process.pid)
    finally:
        ended = _descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for pid in [*ended, process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        log.close()
        shutil.rmtree(short, ignore_errors=True)


def _config(address: str, node: Mapping[str, float], most: int) -> dict[str, Any]:
    nothing = {"min_workers": 0, "max_workers": 0, "node_config": {}}
    return {
        "cluster_name": "growing",
        "max_workers": most,
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {
            "type": "external",  # Ray's wheel lacks a file that its name for the provider needs
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": address,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
        },
        "available_node_types": {
            "ray.head.default": {**nothing, "resources": {"CPU": 0}},
            "worker": {**nothing, "max_workers": most, "resources": dict(node)},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


def _descendants(process: int) -> list[int]:
    """All that a process started, and what those did."""
    own = children(process)
    return [*own, *(other for each in own for other in _descendants(each))]


def _command(process: int) -> str:
    """What a process runs."""
    with suppress(OSError):  # it has ended since
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0].decode()
    return ""


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    host, _, port = address.rpartition(":")
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "the head has ended"
        with suppress(OSError):
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        time.sleep(0.2)
    raise TimeoutError("the head does not come up")


def _own_address() -> str:
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])
