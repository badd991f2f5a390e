"""Which state of each client was committed last, read from a run's results."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from spatl_ray.addresses import working_folder
from spatl_ray.config import Experiment
from spatl_ray.engine.messages import NEVER


def committed(experiment: Experiment) -> Mapping[int, int]:
    """For every client the last round in which its update counted, or NEVER."""
    folder = working_folder(experiment.results.folder)
    path = folder / "clients" / f"run_id={experiment.run_id}"
    rows = pd.read_parquet(path)
    counted = rows[rows["status"].isin(["accepted", "clipped"])]
    last = counted.groupby("client")["round"].max()
    return {client: int(last.get(client, NEVER)) for client in range(experiment.clients)}
