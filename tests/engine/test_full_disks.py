"""Whole runs whose disk becomes full: what they say, what is left, and that they go on with more room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import full_disks
import pytest
from mounts import can_mount

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not can_mount(), reason="no disk can be mounted here"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Runs on a disk of three megabytes, in a mount namespace of their own; all went on to their end."""
    folder, small = tmp_path_factory.mktemp("large"), tmp_path_factory.mktemp("small")
    script = f'"{sys.executable}" "{full_disks.__file__}" "{folder}" "{small}"'
    command = f'mount -t tmpfs -o size=3m none "{small}" && exec {script}'
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("name", "error", "place", "kept"),
    [
        ("slot", "StateError", "states/run_id=", [0]),
        ("undo", "StateError", "/undo/", [1, 2]),
        ("rows", "ResultsError", "/rows/", [1, 2]),
        ("checkpoint", "StateError", "checkpoints.folder must be written, got ", [1, 2]),
        ("model", "StateError", "server.safetensors", [3, 4]),
    ],
)
def test_a_full_disk_is_named(
    told: dict[str, Any], name: str, error: str, place: str, kept: list[int]
) -> None:
    found = told[name]
    assert found["said"][0] == error
    assert place in found["said"][1]
    assert "No space left on device" in found["said"][1]
    assert found["kept"] == kept, "the checkpoints from before are whole"
    if name != "rows":  # else there is no room to say so
        assert found["status"] == "failed"
        assert found["error"] == ": ".join(found["said"])
