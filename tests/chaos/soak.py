"""Kills workers, aggregator and driver of a Ray run at random, again and again.

    python tests/chaos/soak.py --rounds 100 --faults 30 --out results/chaos

The run is compared with one that nobody disturbed, bit for bit; every fault stands in OUT/faults.parquet.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
import pandas as pd
from broken_off import experiment_of, has_begun, started_or_resumed, without_history
from identity import assert_identical, everything
from processes import parent

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.results.reader import read_run

ACTORS = {"worker": b"ray::ClientActor", "aggregator": b"ray::AggregatorActor"}


def fields(rounds: int, engine: dict[str, Any]) -> dict[str, Any]:
    """SPATL with the agent on, a checkpoint after every round."""
    return {"rounds": rounds, "evaluation": {"every": 10, "panel": 5}, "engine": engine}


class Ray:
    """Two nodes on this machine, on which the driver comes and goes."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 2, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=node)
        self._cluster.add_node(num_cpus=2)
        self.address = self._cluster.address

    def close(self) -> None:
        self._cluster.shutdown()


def pids(whom: str) -> list[int]:
    """Of this soak's actors that are at work or wait for it: their nodes are its children."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # It has ended since.
            is_one = (process / "cmdline").read_bytes().startswith(ACTORS[whom])
            if is_one and parent(parent(int(process.name))) == os.getpid():
                found.append(int(process.name))
    return found


def round_of(experiment: Experiment) -> int:
    """The last round with a checkpoint, -1 for none."""
    files = Path(experiment.results.folder).rglob("round-*.ckpt")
    return max((int(path.stem.partition("-")[2]) for path in files), default=-1)


def is_over(experiment: Experiment) -> bool:
    folder = Path(experiment.results.folder)
    return has_begun(folder) and read_run(folder, experiment.run_id)["status"] == "finished"


def disturbed(folder: Path, rounds: int, faults: int, seed: int, address: str) -> pd.DataFrame:
    """The run, killed again and again until it has had its faults; then it may end.

    Returns:
        A row a fault: when, whom, in which round.
    """
    rng = np.random.default_rng(seed)
    given = fields(rounds, {"backend": "ray", "workers": 3, "address": address})
    experiment = experiment_of(folder, "agent", **given)
    rounds_between = rounds // faults  # at most: faults are spread over the run
    told: list[dict[str, object]] = []
    start = time.monotonic()
    driver: subprocess.Popen[bytes] | None = None
    while not is_over(experiment):
        if driver is None or driver.poll() is not None:
            driver = started_or_resumed(folder, "agent", given)
        if len(told) >= faults:
            driver.wait()
            continue
        while not pids("aggregator") and driver.poll() is None:
            time.sleep(0.1)  # It is not up yet.
        reached = round_of(experiment) + int(rng.integers(rounds_between + 1))
        while round_of(experiment) < reached and driver.poll() is None:
            time.sleep(0.05)
        time.sleep(float(rng.uniform(0, 1)))
        whom = str(rng.choice(["worker", "worker", "aggregator", "driver"]))
        there = [driver.pid] if whom == "driver" else pids(whom)
        if not there or driver.poll() is not None:
            continue
        if whom == "driver":
            os.killpg(driver.pid, signal.SIGKILL)
        else:
            os.kill(int(rng.choice(there)), signal.SIGKILL)
        seconds, round_ = time.monotonic() - start, round_of(experiment)
        told.append({"seconds": seconds, "killed": whom, "after_round": round_})
        print(f"{seconds:7.1f} s  {whom:<10}  after round {round_}", flush=True)
    return pd.DataFrame(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/chaos"))
    given = parser.parse_args()
    if given.out.exists():
        parser.error(
            f"--out must not exist yet: an old one must not pass for this one, got {given.out}"
        )
    given.out.mkdir(parents=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])
    quiet = experiment_of(given.out / "quiet", "agent", **fields(given.rounds, {}))
    run(quiet)
    ray = Ray()
    try:
        told = disturbed(
            given.out / "disturbed", given.rounds, given.faults, given.seed, ray.address
        )
    finally:
        ray.close()
    told.to_parquet(given.out / "faults.parquet")
    print(told["killed"].value_counts().to_string())
    loud = experiment_of(given.out / "disturbed", "agent", **fields(given.rounds, {}))
    assert_identical(*(without_history(everything(each)) for each in (quiet, loud)))
    print(
        f"{len(told)} faults, and all {given.rounds} rounds are those of the quiet run, bit for bit"
    )
    if len(told) < given.faults:
        sys.exit(f"the run ended before it had had {given.faults} faults: ask for more rounds")


if __name__ == "__main__":
    main()
