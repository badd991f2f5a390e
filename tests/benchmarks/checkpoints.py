"""What a checkpoint after every round costs, on the preset `fashion_lenet`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np
from figure import Figure
from speed import Stopwatch

from spatl_ray import load_experiment, run


def _seconds(every: int) -> float:
    """Of a round that is not evaluated, with its checkpoint: the median of a run."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        given = [f"results.folder={folder}", f"checkpoints.every={every}", "checkpoints.seconds=0"]
        run(load_experiment("fashion_lenet", given), callbacks=(watch,))
    # Rounds 1, 3, ... are evaluated; the first one waits for everything.
    return float(np.median(np.diff(watch.ends)[1::2]))


def checkpoints(repeats: int) -> Iterator[Figure]:
    """A round with a checkpoint over one without, in turn."""
    ratios = [_seconds(1) / _seconds(0) for _ in range(repeats)]
    text = "fashion_lenet: a round with a checkpoint over one without"
    yield Figure("checkpoints", text, float(np.median(ratios)), most=1.03)
    yield Figure("checkpoints", "the same, least of the repetitions", min(ratios))
    yield Figure("checkpoints", "the same, most of the repetitions", max(ratios))
