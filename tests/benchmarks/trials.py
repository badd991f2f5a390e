"""Seconds that a trial of a search costs beyond its run, on a short form of the demo preset."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from figure import Figure

from spatl_ray import load_experiment, run

GIVEN = ("data.samples=400", "evaluation.every=5")
FEW, MANY = 2, 12
"""Trials of two searches: what both need once cancels out."""

MOST_SECONDS = 0.5


def _search(trials: int) -> float:
    """Seconds of a whole search, one trial after the other."""
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "space.yaml"
        # Nothing that changes how long a run takes.
        space.write_text("training.weight_decay: {loguniform: [1e-6, 1e-5]}\n", encoding="utf-8")
        options = ["--space", str(space), "--search", "random", "--concurrent", "1"]
        place = f"results.folder={folder}/results"
        command = [sys.executable, "tune/search.py", "demo", *GIVEN, place, *options]
        start = time.perf_counter()
        subprocess.run(
            [*command, "--trials", str(trials)], cwd=root, check=True, capture_output=True
        )
        return time.perf_counter() - start


def _alone() -> float:
    """Seconds of the run in a process that has run it before."""
    seconds = []
    for _ in range(4):
        with tempfile.TemporaryDirectory() as folder:
            place = f"results.folder={folder}"
            experiment = load_experiment("demo", [*GIVEN, place, "engine.backend=serial"])
            start = time.perf_counter()
            run(experiment)
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def trials(repeats: int) -> Iterator[Figure]:
    """What Ray Tune, the book and the results of a trial cost."""
    found = [(_search(MANY) - _search(FEW)) / (MANY - FEW) - _alone() for _ in range(repeats)]
    name = "seconds that a trial costs beyond its run"
    yield Figure("trials", name, float(np.median(found)), most=MOST_SECONDS)
