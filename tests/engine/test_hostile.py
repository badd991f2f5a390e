"""Hostile clients: what each rule makes of them in a run, and that workers do not matter."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from identity import assert_identical, everything, small
from small_runs import small as small_run
from small_runs import table

from spatl_ray import run
from spatl_ray.errors import ConfigError

pytestmark = pytest.mark.integration

RULES = ("median", "trimmed_mean", "krum", "multi_krum")


def accuracy(folder: Path, rule: str, attack: dict[str, str]) -> float:
    """Of the global model after some rounds in which two of six clients send nonsense of a bearable size."""
    algorithm = {"name": "sketches:Saboteur", "options": attack}
    fields = {"rounds": 25, "partition": "iid", "sample_ratio": 1.0}
    aggregation = {"rule": rule, "hostile": 0.34}
    experiment = small_run(folder / rule, algorithm, aggregation=aggregation, **fields)
    run(experiment)
    return float(table(folder / rule, "rounds")["global_test_accuracy"].iloc[-1])


def test_rules_withstand_what_a_mean_does_not(tmp_path: Path) -> None:
    attack = {"3": "away", "5": "away"}
    found = {rule: accuracy(tmp_path, rule, attack) for rule in ("mean", *RULES)}
    sound = accuracy(tmp_path / "sound", "mean", {})
    for rule in RULES:
        assert found[rule] > found["mean"] + 0.2, found
        assert found[rule] > sound - 0.15, (found, sound)
    rows = table(tmp_path / "multi_krum", "clients")
    rejected = rows[rows["status"] == "rejected"]
    assert set(rejected["client"]) == {3, 5}
    events = pd.read_parquet(tmp_path / "multi_krum" / "events")
    assert events["message"].str.contains("multi_krum: .* away from the nearest others").all()


@pytest.mark.parametrize("rule", ["multi_krum"])
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_workers_change_nothing(tmp_path: Path, rule: str) -> None:
    found = []
    for name, engine in (("serial", {"backend": "serial"}), ("ray", {"workers": 3})):
        algorithm = {"name": "spatl", "keep": 0.4}
        experiment = small(tmp_path / name, algorithm, engine=engine, aggregation={"rule": rule})
        run(experiment)
        found.append(everything(experiment))
    assert_identical(*found)


@pytest.mark.parametrize("value", [-0.1, 0.5, 1])
def test_no_rule_withstands_a_majority(tmp_path: Path, value: float) -> None:
    with pytest.raises(ConfigError, match=r"aggregation.hostile must be"):
        small(tmp_path, {"name": "fedavg"}, aggregation={"hostile": value})
