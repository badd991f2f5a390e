"""Claims of the methods that show in a few seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import ran, small, table

pytestmark = pytest.mark.integration


def test_half_of_the_channels_cost_at_most_055_of_the_bytes(tmp_path: Path) -> None:
    """ResNet-20: rows of filters travel, not their inputs, so that half costs half."""
    model = {"name": "resnet20", "options": {"width": 4}}
    sent = {}
    for keep in (0.5, 1.0):
        algorithm = {"name": "spatl", "keep": keep, "transfer": False, "control": None}
        ran(small(tmp_path / str(keep), algorithm, rounds=1, model=model))
        sent[keep] = int(table(tmp_path / str(keep), "rounds")["bytes_up"].sum())
    assert 0.4 < sent[0.5] / sent[1.0] <= 0.55


def test_scaffold_does_not_collapse(tmp_path: Path) -> None:
    """Two classes a client and half of the clients a round: variates that started at weights, or
    were divided by the cohort's size, end at chance (0.1) here."""
    experiment = small(
        tmp_path,
        "scaffold",
        rounds=30,
        clients=10,
        sample_ratio=0.5,
        partition={"name": "classes", "k": 2},
        training={"lr": 0.05, "batch_size": 16, "epochs": 2},
        evaluation={"every": 10},
    )
    ran(experiment)
    assert table(tmp_path, "rounds")["global_test_accuracy"].iloc[-1] > 0.6
