"""A Ray cluster with a token: who has it joins, who has not is refused, and is told so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.ray, pytest.mark.slow]

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print("at", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    """That of a user without any token but what is given."""
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    return {**kept, "HOME": str(home), **more}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two nodes that ask for a token; their address."""
    token = tmp_path_factory.mktemp("cluster") / "token"
    token.write_text("a" * 64)
    own = environment(token.parent, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=own,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    address = next(line for line in process.stdout if line.startswith("at ")).split()[1]
    yield address
    process.stdin.close()
    process.wait(60)


def joined(address: str, folder: Path, own: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`spatl run` on the cluster."""
    code = "import sys; from spatl_ray.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", "demo", "algorithm=fedavg", "model=mlp"]
    command += [f"engine.address={address}", "clients=4", "rounds=1", "data.samples=200"]
    command += [f"results.folder={folder / 'results'}", "engine.workers=2"]
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=200)


def test_with_the_token_a_run_joins(tmp_path: Path, cluster: str) -> None:
    own = environment(tmp_path / "home", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 64)
    done = joined(cluster, tmp_path, own)
    assert done.returncode == 0, done.stderr
    assert pd.read_parquet(tmp_path / "results" / "runs")["status"].tolist() == ["finished"]


@pytest.mark.parametrize(
    "token",
    [{}, {"RAY_AUTH_MODE": "token"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64}],
)
def test_without_the_token_a_run_is_refused(
    tmp_path: Path, cluster: str, token: dict[str, str]
) -> None:
    done = joined(cluster, tmp_path, environment(tmp_path / "home", **token))
    assert done.returncode == 2
    assert "error: engine.address" in done.stderr
    assert "oken" in done.stderr
    assert not list((tmp_path / "results").rglob("*.parquet"))
