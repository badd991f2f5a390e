"""Runs with clients in trouble, and what is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from identity import small

from spatl_ray.config import Experiment

SERIAL, ON_RAY = {"backend": "serial"}, {"workers": 2}


def troubled(
    folder: Path, whom: dict[str, str], engine: dict[str, Any], **options: Any
) -> Experiment:
    """Three rounds of all clients; in the second, some are in trouble."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    log.mkdir(exist_ok=True)
    algorithm = {"name": "troubles:Troubled", "options": {"log": str(log), **whom, **options}}
    fields = {"rounds": 3, "clients": 6, "sample_ratio": 1.0, "partition": "iid"}
    return small(folder / "results", algorithm, engine=engine, **fields)


def told(folder: Path) -> pd.DataFrame:
    events = pd.read_parquet(folder / "results" / "events")
    return events[["round", "client", "kind", "message"]]


def tried(folder: Path, client: int) -> int:
    return len(list((folder / "log").glob(f"{client}-*")))


def statuses(folder: Path) -> dict[int, str]:
    rows = pd.read_parquet(folder / "results" / "clients")
    second = rows[(rows["round"] == 1) & rows["participated"]]
    return dict(zip(second["client"], second["status"], strict=True))
