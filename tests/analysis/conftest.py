"""Results folders as the writer leaves them, and frames as the loader reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis.load import ADDED
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
    "holdings": None,
    "sweep_id": None,
    "trial_id": None,
    "config": "{}",
    "versions": "{}",
    "hardware": "{}",
    "fingerprint": "f",
}


def _rounds(
    evaluations: Evaluations,
    up: int,
    down: int,
    simulated: float | None = None,
    panel: Sequence[float | None] = (),
) -> list[dict[str, object]]:
    counts = ("participants", "accepted", "clipped", "rejected", "failed", "late")
    rows = []
    for number, (own, whole) in enumerate(evaluations):
        row: dict[str, object] = dict.fromkeys(file_schema("rounds").names)
        row |= dict.fromkeys(counts, 0)
        row |= {
            "participants": 1,
            "round": number,
            "local_test_accuracy_mean": own,
            "global_test_accuracy": whole,
        }
        row |= {"bytes_up": up, "bytes_up_cumulative": up * (number + 1)}
        row |= {"bytes_down": down, "bytes_down_cumulative": down * (number + 1)}
        if simulated is not None:
            row |= {"simulated_seconds": simulated}
            row |= {"simulated_seconds_cumulative": simulated * (number + 1)}
        if panel:
            row |= {"panel_local_test_accuracy_mean": panel[number], "panel_clients": 10}
        rows.append(row | {"seconds_total": 0.5})
    return rows


def _clients(round_: int, accuracies: Sequence[float | None]) -> list[dict[str, object]]:
    """Own-split accuracies by client; training took 10^12 operations each."""
    needed = {"participated": True, "bytes_up": 0, "bytes_down": 0, "flops": 1e12}
    nothing: dict[str, object] = dict.fromkeys(file_schema("clients").names)
    return [
        nothing | needed | {"round": round_, "client": client, "local_test_accuracy": accuracy}
        for client, accuracy in enumerate(accuracies)
    ]


def _asked(status: str, evaluations: Evaluations) -> dict[str, object]:
    return {"rounds": len(evaluations)} if status == "finished" else {}


@pytest.fixture(scope="session")
def write_run() -> WriteRun:
    """A function that writes a run: (own, global) accuracies by round, bytes and seconds a round.

    Also own-split accuracies by round and client. A finished run has all its rounds, if they are not given.
    """

    def write(
        folder: Path,
        run_id: str,
        evaluations: Evaluations = ((0.5, 0.25),),
        up: int = 10**6,
        down: int = 2 * 10**6,
        status: str = "finished",
        simulated: float | None = None,
        panel: Sequence[float | None] = (),
        clients: Sequence[Sequence[float | None]] = (),
        **run: object,
    ) -> Path:
        writer = ResultsWriter(folder, run_id)
        writer.start(RUN | _asked(status, evaluations) | run)
        rows = _rounds(evaluations, up, down, simulated, panel)
        for row, own in zip_longest(rows, clients[: len(rows)], fillvalue=()):
            writer.add("rounds", [dict(row)])
            writer.add("clients", _clients(row["round"], own))
        if status == "running":
            writer.flush()
        else:
            writer.finish(status)
        return folder

    return write


@pytest.fixture
def make_frames() -> Callable[..., tuple[pd.DataFrame, pd.DataFrame]]:
    """A function from run_id: (fields, evaluations, up, down[, simulated]) to runs and rounds."""

    def make(runs: dict[str, tuple[Any, ...]]) -> tuple[pd.DataFrame, pd.DataFrame]:
        heads = [
            {"run_id": run_id, "status": "finished"} | RUN | fields
            for run_id, (fields, *_) in runs.items()
        ]
        rows = [
            {"run_id": run_id} | row
            for run_id, (_, *dealt) in runs.items()
            for row in _rounds(*dealt)
        ]
        rounds = pd.DataFrame(rows)
        numbers = [name for name in rounds.columns if name not in ("run_id", "round")]
        return pd.DataFrame(heads), rounds.astype(dict.fromkeys(numbers, float))

    return make


@pytest.fixture
def make_older() -> Callable[[Path], Path]:
    """A function that takes from a results folder the columns that older ones lack."""

    def older(folder: Path) -> Path:
        for table, added in ADDED.items():
            for path in (folder / table).rglob("*.parquet"):
                rows = pq.read_table(path, partitioning=None)
                pq.write_table(rows.drop_columns(list(added)), path)
        return folder

    return older
