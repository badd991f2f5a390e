"""What a trial can send at most, held against what whole runs do send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from identity import small

from spatl_ray import run
from spatl_ray.experiments import experiment_from
from spatl_ray.overrides import overridden
from spatl_ray.results.reader import read_rounds
from tune.limits import grace_of, most_of
from tune.space import SPACES, Space, parse_space

SENT = "algorithm.control.variate=sent"
WHOLE = "algorithm.keep=1.0"
FEEDBACK = ["algorithm.error_feedback=true", "algorithm.denominator=cohort"]

# What is sent up and down, in models: FedAvg 1 + 1; derived variates 1 + 2, of which 2 + 2 are allowed.
RUNS = [
    ("fedavg", ["wire.uplink=bfloat16"], 4 / 3),
    ("scaffold", [], 4 / 3),
    ("scaffold", [SENT], 1.0),
    ("spatl", [WHOLE], 4 / 3),
    ("spatl", [WHOLE, SENT, *FEEDBACK], 1.0),
]


def most_with(space: Space, raw: Any, *overrides: str) -> int:
    experiment = experiment_from(overridden(raw, overrides))
    return most_of("asha-bytes", experiment, space, raw, overrides)


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Any]:
    """Two rounds of the digits, half of twelve clients, on a network with prunable layers and buffers."""

    fields: dict[str, Any] = {"sample_ratio": 0.5, "checkpoints": {"every": 0}}
    fields |= {"training": {"steps": 1}, "engine": {"backend": "serial"}}
    return small(tmp_path, {"name": "fedavg"}, **fields).model_dump(mode="json")


@pytest.mark.parametrize(("algorithm", "overrides", "too_large"), RUNS)
def test_no_run_sends_more_than_the_most(
    raw: Any, algorithm: str, overrides: list[str], too_large: float
) -> None:
    texts = [f"algorithm={algorithm}", *overrides]
    summary = run(experiment_from(overridden(raw, texts)))
    last = read_rounds(summary.folder, summary.run_id)[-1]
    sent = last["bytes_up_cumulative"] + last["bytes_down_cumulative"]
    space = parse_space((SPACES / f"{algorithm}.yaml").read_text("utf-8"), "the space")
    most = most_with(space, raw, *texts)
    assert sent <= most
    assert most / sent == pytest.approx(too_large, rel=0.1)


def test_the_most_is_that_of_the_heaviest_point(raw: Any) -> None:
    one = parse_space("training.lr: {uniform: [0.1, 0.2]}", "the space")
    plain = most_with(one, raw, "algorithm=fedavg")
    sizes = parse_space("sample_ratio: {choice: [0.2, 1.0]}", "the space")
    assert most_with(sizes, raw, "algorithm=fedavg") == plain * 12 // 6
    types = parse_space("wire.downlink: {choice: [float16, null]}", "the space")
    assert most_with(types, raw, "algorithm=fedavg") == plain
    names = parse_space("algorithm: {choice: [fedavg, scaffold]}", "the space")
    assert most_with(names, raw) == most_with(one, raw, "algorithm=scaffold") > 1.9 * plain
    fixed = parse_space("sample_ratio: 1.0\ntraining.lr: {uniform: [0.1, 0.2]}", "the space")
    assert most_with(fixed, raw, "algorithm=fedavg") == plain * 12 // 6


def test_the_first_decision_comes_after_a_ninth(raw: Any) -> None:
    experiment = experiment_from(raw)
    assert grace_of("asha-bytes", experiment, 900) == 100
    assert grace_of("asha", experiment, 90) == 10
    assert grace_of("asha", experiment, 2) == experiment.evaluation.every
