"""Kills a run's driver again and again, and resumes it each time.

    python tests/chaos/kills.py --kills 20 --rounds 100 --out results/kills
    python tests/chaos/kills.py --kills 20 --rounds 100 --out results/kills_ray --backend ray

For FedAvg, SCAFFOLD and SPATL with the agent on. A third of the kills come at a random moment of start-up or
resumption, a third at one after the process's first checkpoint, and a third while a later checkpoint is being
written. The end is compared with a run that nobody disturbed, bit for bit; every kill stands in
OUT/ALGORITHM.parquet.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
import pandas as pd
from broken_off import ALGORITHMS, experiment_of, started_or_resumed, without_history
from identity import assert_identical, everything
from soak import Ray, fields, is_over, round_of

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.engine.folders import checkpoint_folder

STARTING = {"serial": 6.0, "ray": 15.0}
"""Seconds from a process's start within which it is killed while it starts."""

TRAINING = 2.0
"""Seconds from a process's first checkpoint within which it is killed, or its next checkpoint awaited."""

MOMENTS = ("starting", "training", "checkpoint")


def being_written(folder: str) -> bool:
    """Whether a checkpoint is on its way to the disk, under its first name."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.startswith(".round-") for entry in entries)
    except FileNotFoundError:
        return False


def killed(driver: subprocess.Popen[bytes], when: Callable[[], bool], patience: float) -> bool:
    """Kill a driver as soon as something holds.

    Returns:
        Whether it was killed: it may have ended before.
    """
    while driver.poll() is None:
        if when():
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
            return True
        time.sleep(patience)
    return False


class Moment:
    """Holds from a moment on, which is counted from this object's making.

    Args:
        kind: one of MOMENTS.
        experiment: whose checkpoints are watched.
        wait: seconds to let pass: from now, or from the first new checkpoint on.
    """

    def __init__(self, kind: str, experiment: Experiment, wait: float) -> None:
        self._kind, self._experiment = kind, experiment
        self._wait, self._from = wait, time.monotonic() if kind == "starting" else None
        self._before = round_of(experiment)

    def __call__(self) -> bool:
        if self._from is None:
            if round_of(self._experiment) > self._before:
                self._from = time.monotonic()
            return False
        if time.monotonic() - self._from < self._wait:
            return False
        return self._kind != "checkpoint" or being_written(checkpoint_folder(self._experiment))


def disturbed(
    folder: Path, name: str, given: dict[str, Any], kills: int, rng: np.random.Generator
) -> pd.DataFrame:
    """A run that is killed so many times, then left to end.

    Returns:
        A row a kill: when, in which way, after which round's checkpoint, whether one was cut off.
    """
    experiment = experiment_of(folder, name, **given)
    place = checkpoint_folder(experiment)
    told: list[dict[str, object]] = []
    start = time.monotonic()
    while len(told) < kills:
        for part in Path(place).glob(".round-*"):
            part.unlink()  # cut off before
        kind = MOMENTS[len(told) % len(MOMENTS)]
        longest = STARTING[given["engine"]["backend"]] if kind == "starting" else TRAINING
        moment = Moment(kind, experiment, float(rng.uniform(0, longest)))
        driver = started_or_resumed(folder, name, given)
        if not killed(driver, moment, 0.0002 if kind == "checkpoint" else 0.01):
            raise RuntimeError(f"{name} ended after {len(told)} kills: ask for more rounds")
        row = {
            "seconds": time.monotonic() - start,
            "moment": kind,
            "after_round": round_of(experiment),
            "cut_off": being_written(place),
        }
        told.append(row)
        print(name, row, flush=True)
    last = started_or_resumed(folder, name, given)
    if last.wait() or not is_over(experiment):
        raise RuntimeError(f"{name} ended with status {last.returncode}")
    return pd.DataFrame(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=STARTING, default="serial")
    parser.add_argument("--out", type=Path, default=Path("results/kills"))
    given = parser.parse_args()
    if given.out.exists():
        parser.error(
            f"--out must not exist yet: an old one must not pass for this one, got {given.out}"
        )
    given.out.mkdir(parents=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])
    rng = np.random.default_rng(given.seed)
    ray = Ray() if given.backend == "ray" else None
    engine = {"backend": given.backend}
    if ray is not None:
        engine |= {"workers": 3, "address": ray.address}
    try:
        for name in ALGORITHMS:
            quiet = experiment_of(given.out / name / "quiet", name, **fields(given.rounds, {}))
            run(quiet)
            loud = fields(given.rounds, engine)
            told = disturbed(given.out / name / "disturbed", name, loud, given.kills, rng)
            told.to_parquet(given.out / f"{name}.parquet")
            other = experiment_of(given.out / name / "disturbed", name, **loud)
            assert_identical(*(without_history(everything(each)) for each in (quiet, other)))
            print(
                f"{name}: {len(told)} kills, {told['cut_off'].sum()} with a checkpoint cut off; all "
                f"{given.rounds} rounds are those of the quiet run, bit for bit",
                flush=True,
            )
            if given.kills >= len(MOMENTS) and not told["cut_off"].any():
                sys.exit(f"{name}: no checkpoint was cut off: ask for more kills")
    finally:
        if ray is not None:
            ray.close()


if __name__ == "__main__":
    main()
