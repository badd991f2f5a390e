"""Seconds until the first round of the demo, over what Ray and torch alone need."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from figure import Figure

HERE = Path(__file__).parent

ALONE = """
import time
import ray
import torch
ray.init(num_cpus=2, include_dashboard=False, logging_level="error")

@ray.remote
class Actor:
    def ready(self):
        import torch
        return torch.zeros(1)

actors = [Actor.remote() for _ in range(2)]
ray.get([actor.ready.remote() for actor in actors])
print(time.time())
"""


def startup(repeats: int) -> Iterator[Figure]:
    """`spatl run demo` to its first round; ray.init and torch in a driver and two actors."""
    ratios = [_to_first_round() / _alone() for _ in range(repeats)]
    yield Figure(
        "startup",
        "demo's first round, over Ray and torch alone",
        float(np.median(ratios)),
        most=1.3,
    )


def _alone() -> float:
    start = time.time()
    done = subprocess.run([sys.executable, "-c", ALONE], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) - start


def _to_first_round() -> float:
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "first_round"
        command = [
            sys.executable,
            "-m",
            "spatl_ray.cli",
            "run",
            "demo",
            "rounds=1",
            "engine.workers=2",
        ]
        where = [f"results.folder={folder}/results", "results.loggers=[first_round:FirstRound]"]
        start = time.time()
        subprocess.run(
            [*command, *where],
            check=True,
            capture_output=True,
            cwd=HERE,
            env={**os.environ, "FIRST_ROUND": str(mark)},
        )
        return float(mark.read_text()) - start
