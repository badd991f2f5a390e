"""Results folders as the writer leaves them, and frames as the loader reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from spatl_ray.results.schema import file_schema
from spatl_ray.results.writer import ResultsWriter

Evaluations = Sequence[tuple[float | None, float | None]]
WriteRun = Callable[..., Path]

RUN = {
    "name": "demo",
    "algorithm": "fedavg",
    "dataset": "digits",
    "partition": "dirichlet(beta=0.3)",
    "model": "lenet",
    "seed": 0,
    "clients": 10,
    "sample_ratio": 1.0,
    "rounds": 3,
    "shared_parameters": 100,
    "local_parameters": 10,
    "config_hash": "c",
    "data_fingerprint": "d",
    "config": "{}",
    "versions": "{}",
    "hardware": "{}",
    "fingerprint": "f",
}


def _rounds(evaluations: Evaluations, up: int, down: int) -> list[dict[str, object]]:
    counts = ("participants", "accepted", "clipped", "rejected", "failed")
    rows = []
    for number, (own, whole) in enumerate(evaluations):
        row: dict[str, object] = dict.fromkeys(file_schema("rounds").names)
        row |= dict.fromkeys(counts, 0)
        row |= {"round": number, "local_test_accuracy_mean": own, "global_test_accuracy": whole}
        row |= {"bytes_up": up, "bytes_up_cumulative": up * (number + 1)}
        row |= {"bytes_down": down, "bytes_down_cumulative": down * (number + 1)}
        rows.append(row | {"seconds_total": 0.5})
    return rows


@pytest.fixture
def write_run() -> WriteRun:
    """A function that writes a run with (own, global) accuracies by round and bytes a round."""

    def write(
        folder: Path,
        run_id: str,
        evaluations: Evaluations = ((0.5, 0.25),),
        up: int = 10**6,
        down: int = 2 * 10**6,
        status: str = "finished",
        **run: object,
    ) -> Path:
        writer = ResultsWriter(folder, run_id)
        writer.start(RUN | run)
        writer.add("rounds", _rounds(evaluations, up, down))
        if status == "running":
            writer.flush()
        else:
            writer.finish(status)
        return folder

    return write


@pytest.fixture
def make_frames() -> Callable[..., tuple[pd.DataFrame, pd.DataFrame]]:
    """A function from run_id: (fields, evaluations, up, down) to frames of runs and rounds."""

    def make(
        runs: dict[str, tuple[dict[str, object], Evaluations, int, int]],
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        heads = [
            {"run_id": run_id, "status": "finished"} | RUN | fields
            for run_id, (fields, _, _, _) in runs.items()
        ]
        rows = [
            {"run_id": run_id} | row
            for run_id, (_, evaluations, up, down) in runs.items()
            for row in _rounds(evaluations, up, down)
        ]
        rounds = pd.DataFrame(rows)
        metrics = ["local_test_accuracy_mean", "global_test_accuracy"]
        return pd.DataFrame(heads), rounds.astype(dict.fromkeys(metrics, float))

    return make
