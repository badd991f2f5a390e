"""A run that is going on is left alone by others."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from broken_off import ROUNDS, broken_off, experiment_of, has_begun, started_or_resumed

from spatl_ray import Callback, resume, run
from spatl_ray.config import Experiment
from spatl_ray.errors import ResultsError

pytestmark = pytest.mark.integration

MLP = {"name": "mlp", "options": {"hidden": [16]}}
LONG: dict[str, Any] = {"rounds": 100_000, "evaluation": {"every": 1000, "panel": 2}, "model": MLP}


@pytest.fixture
def going_on(tmp_path: Path) -> Iterator[tuple[Experiment, subprocess.Popen[bytes]]]:
    """A long run, and the process that it is in."""
    process = started_or_resumed(tmp_path, "scaffold", LONG)
    try:
        while not has_begun(tmp_path):
            assert process.poll() is None
            time.sleep(0.01)
        yield experiment_of(tmp_path, "scaffold", **LONG), process
    finally:
        process.kill()
        process.wait()


def test_a_run_that_goes_on_is_left_alone(
    going_on: tuple[Experiment, subprocess.Popen[bytes]],
) -> None:
    experiment, process = going_on
    folder, run_id = Path(experiment.results.folder), experiment.run_id
    again = experiment.model_copy(
        update={"results": experiment.results.model_copy(update={"overwrite": True})}
    )
    who = rf"run '{run_id}' must not be going on already, got process {process.pid} on "
    for start in (lambda: resume(folder, run_id), lambda: run(again)):
        with pytest.raises(ResultsError, match=who + re.escape(socket.gethostname())):
            start()
    while not list(folder.glob("checkpoints/*/*.ckpt")):
        assert process.poll() is None, "it was not disturbed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(RuntimeError, match="enough"):  # a kill leaves nobody locked out
        resume(folder, run_id, callbacks=[Enough()])
    assert pd.read_parquet(folder / "runs")["status"].tolist() == ["failed"]


class Enough(Callback):
    def round_started(self, round_: int) -> None:
        raise RuntimeError("enough")


def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refused)
    experiment = experiment_of(tmp_path, "fedavg", model=MLP)
    broken_off(experiment, after=2)
    assert resume(tmp_path, experiment.run_id).last_round["round"] == ROUNDS - 1
