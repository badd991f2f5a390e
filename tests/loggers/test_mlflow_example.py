"""The README's MLflow logger, with MLflow's own file store: nothing leaves the machine."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from small_runs import small, table

import spatl_ray

pytestmark = pytest.mark.integration


def test_mlflow_has_every_number_of_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    results = {"folder": str(tmp_path / "results"), "loggers": ["mlflow_logger:MLflow"]}
    experiment = small(tmp_path, rounds=2, evaluation={"every": 2}, results=results)
    spatl_ray.run(experiment)

    import mlflow  # after the environment is set: it is read then

    client = mlflow.MlflowClient(store)
    (logged,) = client.search_runs(["0"])
    assert logged.info.run_name == experiment.run_id
    assert logged.info.status == "FINISHED"
    assert logged.data.params == {"algorithm": "fedavg", "seed": "0"}
    rounds = table(tmp_path / "results", "rounds").drop(columns="run_id").set_index("round")
    for column in rounds:
        known = rounds[column].dropna()
        history = client.get_metric_history(logged.info.run_id, column)
        assert (
            pd.Series({m.step: m.value for m in history}, dtype=float).to_dict() == known.to_dict()
        )
    assert {
        m.step for m in client.get_metric_history(logged.info.run_id, "global_test_accuracy")
    } == {1}
