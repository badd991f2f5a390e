"""What all tests share: one thread, reproducible examples, one Ray a session."""

from __future__ import annotations

import os

# Before torch and Ray are imported: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray gives its workers a low priority, so that anything else on the machine starves them.
os.environ.setdefault("RAY_worker_niceness", "0")

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from buckets import Server

torch.set_num_threads(1)

settings.register_profile("local", deadline=None, max_examples=40)
settings.register_profile("ci", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Two Ray nodes on this machine, started once; their CPUs and GPUs exist by name only."""
    import ray
    from ray.cluster_utils import Cluster

    # Ray refuses to pretend GPUs where this hides them.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    node = {"num_cpus": 2, "num_gpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=2, num_gpus=1)
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """A server of the S3 protocol on loopback."""
    from buckets import Server

    server = Server()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address in a bucket of its own; this machine has no working copy of it."""
    from buckets import KEYS

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return s3_server.make(tmp_path.name.replace("_", "-").lower()[:40].strip("-"))
