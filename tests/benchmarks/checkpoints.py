"""What checkpoints cost, on the preset `fashion_lenet`.

Two ways: how long the run waits for a checkpoint after every round; and, as what a checkpoint makes slower
elsewhere is not waited for, rounds with one over rounds without. Whole runs differ by more than that, so both
are of one run: with a checkpoint after every fourth round, two rounds that begin with one take turns with two
that do not. Each of these checkpoints follows an evaluation, so that nothing is trained meanwhile: after
other rounds it costs less.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator

import numpy as np
from figure import Figure
from speed import Stopwatch

from spatl_ray import load_experiment, run

PAUSE = 4
"""Rounds from checkpoint to checkpoint, where rounds are compared."""


class _Waits(Stopwatch):
    """Notes too when a round's turn came: it comes when the checkpoint is on the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[float] = []

    def round_started(self, round_: int) -> None:
        self.turns.append(time.perf_counter())


def _watched(rounds: int, every: int) -> _Waits:
    watch = _Waits()
    with tempfile.TemporaryDirectory() as folder:
        given = [f"results.folder={folder}", f"rounds={rounds}", f"checkpoints.every={every}"]
        run(load_experiment("fashion_lenet", [*given, "checkpoints.seconds=0"]), callbacks=(watch,))
    return watch


def _waited() -> float:
    """Share of the rounds' time that the run waits for checkpoints; the first round is left out."""
    watch = _watched(20, 1)
    waited = np.subtract(watch.turns[2:], watch.ends[1:-1]).sum()
    return float(waited / (watch.ends[-1] - watch.ends[0] - waited))


def _slower() -> float:
    """A checkpoint's seconds over those of a round without one."""
    # A round's rows are told before its checkpoint is taken: pairs of rounds from the fourth one on.
    pairs = np.diff(_watched(64, PAUSE).ends[PAUSE - 1 :: 2])
    with_one, without = np.median(pairs[::2]), np.median(pairs[1::2])
    return float((with_one - without) / (without / 2))


def checkpoints(repeats: int) -> Iterator[Figure]:
    """A round with a checkpoint over one without."""
    waited = [1 + _waited() for _ in range(repeats)]
    text = "fashion_lenet: rounds with checkpoints over without, waits"
    yield Figure("checkpoints", text, float(np.median(waited)), most=1.03)
    yield Figure("checkpoints", "the same, most of the repetitions", max(waited))
    slower = [1 + _slower() for _ in range(repeats)]
    text = "fashion_lenet: a round with a checkpoint over one without"
    yield Figure("checkpoints", text, float(np.median(slower)), most=1.03)
    yield Figure("checkpoints", "the same, least of the repetitions", min(slower))
    yield Figure("checkpoints", "the same, most of the repetitions", max(slower))
