"""Ray's metrics of a run, read where Prometheus would read them."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest
from small_runs import small, table

import spatl_ray
from spatl_ray.errors import ConfigError
from spatl_ray.loggers.ray_metrics import COUNTED, SHOWN

ROOT = Path(__file__).resolve().parents[2]


def test_without_ray_there_are_no_metrics(tmp_path: Path) -> None:
    results = {"folder": str(tmp_path), "loggers": ["ray_metrics"]}
    with pytest.raises(ConfigError, match=r"must not name ray_metrics without Ray"):
        spatl_ray.run(small(tmp_path, results=results))


def test_the_dashboard_shows_all_metrics_and_no_others() -> None:
    panels = json.loads((ROOT / "cluster" / "grafana.json").read_text())["panels"]
    shown = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"ray_(spatl_\w+)", target["expr"])
    }
    assert shown == {*SHOWN, *(f"{name}_total" for name in COUNTED)}


def exported(run_id: str) -> dict[str, float]:
    """A run's metrics on whichever node its driver is."""
    import ray

    found = {}
    for node in ray.nodes():
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        own = [each for each in lines if each.startswith("ray_spatl") and f'"{run_id}"' in each]
        found |= {line.partition("{")[0][4:]: float(line.rpartition(" ")[2]) for line in own}
    return found


@pytest.mark.integration
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_the_metrics_are_those_of_the_tables(tmp_path: Path) -> None:
    experiment = small(
        tmp_path,
        rounds=2,
        engine={"backend": "ray", "workers": 1},
        results={"folder": str(tmp_path), "loggers": ["ray_metrics"]},
    )
    spatl_ray.run(experiment)
    until = time.monotonic() + 60
    while (found := exported(experiment.run_id)).get("spatl_rounds_total", 0) < 2:
        assert time.monotonic() < until, found
        time.sleep(1)
    rounds = table(tmp_path, "rounds")
    last = rounds.iloc[-1]
    assert found["spatl_bytes_up_total"] == rounds["bytes_up"].sum()
    assert found["spatl_bytes_down_total"] == rounds["bytes_down"].sum()
    assert found["spatl_clients_total"] == rounds["participants"].sum()
    assert found["spatl_train_loss"] == pytest.approx(last["train_loss"])
    assert found["spatl_queue"] == 0
    assert 0 < found["spatl_efficiency"] <= 1.05
