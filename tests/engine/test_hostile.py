"""Hostile clients in runs: what each attack does to a mean, what rules make of it, and that workers do not
matter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from identity import assert_identical, everything, small
from safetensors.numpy import load_file
from small_runs import small as small_run
from small_runs import table

from spatl_ray import run
from spatl_ray.engine.folders import model_file
from spatl_ray.errors import ConfigError

pytestmark = pytest.mark.integration

RULES = ("median", "trimmed_mean", "krum", "multi_krum")

SIGN_FLIP = {"name": "sign_flip", "share": 0.34, "scale": 8.0}
SCALED = {"name": "scaled", "share": 0.34, "scale": 100.0}


def accuracy(folder: Path, rule: str, attack: Mapping[str, Any] | None) -> float:
    """Of the global model after some rounds in which two of six clients may be hostile."""
    fields = {"rounds": 25, "partition": "iid", "sample_ratio": 1.0, "attack": attack}
    fields["evaluation"] = {"every": 25}
    aggregation = {"rule": rule, "hostile": 0.34}
    experiment = small_run(folder / rule, "fedavg", aggregation=aggregation, **fields)
    run(experiment)
    return float(table(folder / rule, "rounds")["global_test_accuracy"].iloc[-1])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The accuracy of a mean without hostile clients."""
    return accuracy(tmp_path_factory.mktemp("sound"), "mean", None)


def test_rules_withstand_flipped_signs_that_a_mean_does_not(tmp_path: Path, sound: float) -> None:
    found = {rule: accuracy(tmp_path, rule, SIGN_FLIP) for rule in ("mean", *RULES)}
    for rule in RULES:
        assert found[rule] > found["mean"] + 0.2, found
        assert found[rule] > sound - 0.15, (found, sound)
    rows = table(tmp_path / "multi_krum", "clients")
    rejected = rows["status"] == "rejected"
    assert rejected.sum() == 50
    assert (rejected == rows["hostile"].astype(bool)).all()
    events = pd.read_parquet(tmp_path / "multi_krum" / "events")
    assert events["message"].str.contains("multi_krum: .* away from the nearest others").all()


@pytest.mark.parametrize("name", ["scaled", "gaussian"])
def test_a_median_withstands_large_updates_that_a_mean_does_not(
    tmp_path: Path, sound: float, name: str
) -> None:
    attack = {"name": name, "share": 0.34, "scale": 100.0}
    found = {rule: accuracy(tmp_path, rule, attack) for rule in ("mean", "median")}
    assert found["mean"] < sound - 0.3, (found, sound)
    assert found["median"] > sound - 0.1, (found, sound)


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "multi_krum"])
def test_nobody_lies_where_few_others_send(tmp_path: Path, rule: str) -> None:
    """Two of ten clients multiply what they send by 10,000, where hardly anybody else sends anything."""
    largest = {}
    for name, attack in (("sound", None), ("attacked", {**SCALED, "share": 0.2, "scale": 1e4})):
        experiment = small_run(
            tmp_path / name,
            {"name": "spatl", "keep": 0.2, "transfer": False, "control": None},
            model={"name": "cnn", "options": {"width": 8, "hidden": 8}},
            clients=10,
            aggregation={"rule": rule, "hostile": 0.2},
            attack=attack,
        )
        run(experiment)
        server = load_file(model_file(experiment))
        largest[name] = max(float(np.abs(each).max()) for each in server.values())
    assert largest["attacked"] < 2 * largest["sound"]


def test_flipped_labels_are_learnt(tmp_path: Path, sound: float) -> None:
    """If all clients flip them, no rule helps: what is learnt is wrong wherever labels are true."""
    attack = {"name": "label_flip", "share": 1.0}
    assert accuracy(tmp_path, "median", attack) < 0.05 < sound - 0.7


@pytest.mark.parametrize(
    ("rule", "attack"), [("multi_krum", "gaussian"), ("mean", "sign_flip"), ("mean", "label_flip")]
)
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_workers_change_nothing(tmp_path: Path, rule: str, attack: str) -> None:
    found = []
    for name, engine in (("serial", {"backend": "serial"}), ("ray", {"workers": 3})):
        algorithm = {"name": "spatl", "keep": 0.4}
        fields = {"aggregation": {"rule": rule}, "attack": {"name": attack, "share": 0.4}}
        experiment = small(tmp_path / name, algorithm, engine=engine, **fields)
        run(experiment)
        found.append(everything(experiment))
    assert_identical(*found)
    assert found[0]["clients.hostile"].any()


@pytest.mark.parametrize("value", [-0.1, 0.5, 1])
def test_no_rule_withstands_a_majority(tmp_path: Path, value: float) -> None:
    with pytest.raises(ConfigError, match=r"aggregation.hostile must be"):
        small(tmp_path, {"name": "fedavg"}, aggregation={"hostile": value})
