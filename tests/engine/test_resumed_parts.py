"""What a run carries on of samplers, losses, devices, attacks and rules, beside model and states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from broken_off import Watch, broken_off, without_history
from identity import assert_identical, everything
from small_runs import small

from spatl_ray import resume, run
from spatl_ray.config import Experiment

pytestmark = pytest.mark.integration

CANDIDATES = {"name": "power_of_choice", "candidates": 5}
DEVICES = {
    "compute": {"name": "between", "low": 1e6, "high": 5e6},
    "uplink": {"name": "between", "low": 1e4, "high": 1e5},
    "downlink": {"name": "constant", "value": 1e5},
}
CASES: dict[str, dict[str, Any]] = {
    "a sampler's turns and availability": {
        "sampler": {"name": "round_robin"},
        "availability": {"name": "random", "p": 0.6},
    },
    "last losses and flipped signs": {
        "sampler": {**CANDIDATES, "loss": "last"},
        "attack": {"name": "sign_flip", "share": 0.34},
        "evaluation": {"every": 2},
    },
    "current losses and devices": {
        "sampler": {**CANDIDATES, "loss": "current"},
        "devices": DEVICES,
    },
    "noise, by the median of the fastest": {
        "attack": {"name": "gaussian", "share": 0.34},
        "aggregation": {"rule": "median"},
        "devices": DEVICES,
        "stragglers": {"oversample": 1.5},
    },
}


def experiment_of(folder: Path, fields: dict[str, Any]) -> Experiment:
    fields = {"rounds": 6, "sample_ratio": 0.5, "checkpoints": {"seconds": 0.0}, **fields}
    return small(folder, "scaffold", **fields)


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_is_the_undisturbed_one(tmp_path: Path, name: str) -> None:
    plain = experiment_of(tmp_path / "plain", CASES[name])
    run(plain)
    experiment = experiment_of(tmp_path / "broken", CASES[name])
    broken_off(experiment, after=3)
    watch = Watch()
    resume(tmp_path / "broken", experiment.run_id, callbacks=[watch])
    assert watch.rounds == [3, 4, 5]
    expected = without_history(everything(plain))
    assert_identical(without_history(everything(experiment)), expected)
    if "devices" in CASES[name]:
        assert expected["rounds.simulated_seconds_cumulative"][-1] > 0
    if "attack" in CASES[name]:
        assert expected["clients.hostile"].any()
