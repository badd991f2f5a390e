"""Processes and nodes that are lost in a Ray run: it goes on, to the same bits."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
from broken_off import ROUNDS, Watch, experiment_of, started_or_resumed, without_history
from identity import assert_identical, everything

from spatl_ray import resume, run
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import load_dataset
from spatl_ray.data.federated import federate
from spatl_ray.engine.folders import state_folder
from spatl_ray.engine.ray_backend import RayBackend
from spatl_ray.errors import LostError

pytestmark = [pytest.mark.integration, pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

NAMES = ("scaffold", "agent")
ON_RAY = {"backend": "ray", "workers": 3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Runs of one process that were never disturbed."""
    found = {}
    for name in NAMES:
        experiment = experiment_of(tmp_path_factory.mktemp(name), name)
        run(experiment)
        found[name] = without_history(everything(experiment))
    return found


def on_ray(experiment: Experiment) -> RayBackend:
    data = federate(load_dataset(experiment.data, experiment.seed), experiment)
    return RayBackend(experiment, data, state_folder(experiment))


class Kill(Watch):
    """Kills an actor of a backend in the middle of a round, for good."""

    def __init__(self, backend: RayBackend, whom: Callable[[RayBackend], Any], times: int) -> None:
        super().__init__()
        self._backend, self._whom, self._left = backend, whom, times

    def clients_done(self, round_: int, done: int, cohort: int) -> None:
        if round_ == 3 and self._left:
            self._left -= 1
            ray.kill(self._whom(self._backend))


WHOM: dict[str, Callable[[RayBackend], Any]] = {
    "aggregator": lambda backend: backend._aggregator,
    "worker": lambda backend: backend._workers[0],
}


@pytest.mark.parametrize(
    ("name", "whom"),
    [
        ("scaffold", "aggregator"),
        pytest.param("agent", "worker", marks=pytest.mark.slow),
    ],
)
def test_an_actor_that_is_gone_is_replaced(tmp_path: Path, name: str, whom: str) -> None:
    experiment = experiment_of(tmp_path, name, engine=ON_RAY, evaluation={"every": 6, "panel": 5})
    backend = on_ray(experiment)
    watch = Kill(backend, WHOM[whom], times=1)
    run(experiment, callbacks=[watch], backend=backend)
    assert [event["kind"] for event in watch.events] == ["recovered"]
    assert sorted(set(watch.rounds)) == list(range(ROUNDS))
    plain = experiment_of(tmp_path / "serial", name, evaluation={"every": 6, "panel": 5})
    run(plain)
    assert_identical(without_history(everything(experiment)), without_history(everything(plain)))


@pytest.mark.slow
def test_what_is_lost_again_and_again_ends_the_run(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path, "scaffold", engine=ON_RAY)
    backend = on_ray(experiment)
    with pytest.raises(LostError, match="a Ray actor, node or object is gone"):
        run(experiment, callbacks=[Kill(backend, WHOM["aggregator"], 99)], backend=backend)
    events = pd.read_parquet(tmp_path / "events")
    assert (events["kind"] == "recovered").sum() == 3
    assert pd.read_parquet(tmp_path / "runs")["status"].tolist() == ["failed"]
    assert pd.read_parquet(tmp_path / "rounds")["round"].tolist() == [0, 1, 2]
    resume(tmp_path, experiment.run_id)
    assert pd.read_parquet(tmp_path / "rounds")["round"].tolist() == list(range(ROUNDS))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_driver_loses_nothing(
    tmp_path: Path, whole: dict[str, dict[str, Any]], name: str
) -> None:
    """Its workers may be at the next round already, and have written states of it."""
    engine = {**ON_RAY, "address": ray.get_runtime_context().gcs_address}
    for round_ in (1, 3):
        process = started_or_resumed(tmp_path, name, {"engine": engine})
        started = time.monotonic()
        while not list(tmp_path.rglob(f"round-{round_:06d}.ckpt")) and process.poll() is None:
            assert time.monotonic() - started < 120
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    experiment = experiment_of(tmp_path, name, engine=engine)
    assert pd.read_parquet(tmp_path / "runs")["status"].tolist() == ["running"]
    watch = Watch()
    resume(tmp_path, experiment.run_id, callbacks=[watch])
    assert watch.rounds[0] >= 4
    assert_identical(without_history(everything(experiment)), whole[name])
