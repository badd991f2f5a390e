"""Keep ratios that tighten over rounds, and masks that are repeated, by closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import HIDDEN, ran, serial, small, table

from spatl_ray import run
from spatl_ray.callbacks import Callback
from spatl_ray.config import KeepSchedule
from spatl_ray.engine.backend import SerialBackend
from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from
from spatl_ray.selection.salience import kept_channels, scheduled
from spatl_ray.wire.masks import packed_size

KEEP, START, ROUNDS = 0.25, 1.0, 4
EXPECTED = {
    "linear": [1.0, 0.8125, 0.625, 0.4375, 0.25, 0.25],
    "cosine": [
        1.0,
        0.25 + 0.375 * (1 + 0.5**0.5),
        0.625,
        0.25 + 0.375 * (1 - 0.5**0.5),
        0.25,
        0.25,
    ],
    "exponential": [1.0, 0.5**0.5, 0.5, 0.125**0.5, 0.25, 0.25],
}


@pytest.mark.parametrize("shape", EXPECTED)
def test_the_ratio_of_each_round(shape: Any) -> None:
    schedule = KeepSchedule(start=START, rounds=ROUNDS, shape=shape)
    ratios = [scheduled(schedule, KEEP, round_) for round_ in range(6)]
    assert ratios == pytest.approx(EXPECTED[shape], rel=1e-15)
    assert ratios[ROUNDS] == KEEP


def test_without_a_schedule_the_ratio_stays() -> None:
    assert [scheduled(None, KEEP, round_) for round_ in (0, 9)] == [KEEP, KEEP]


@pytest.mark.integration
@pytest.mark.parametrize("allocation", ["layer", "global"])
def test_what_travels_follows_it(tmp_path: Path, allocation: str) -> None:
    schedule = {"rounds": 2, "shape": "exponential"}
    options = {"name": "spatl", "keep": KEEP, "keep_schedule": schedule, "allocation": allocation}
    ran(small(tmp_path, options, rounds=4))
    layers = table(tmp_path, "layers")
    kept = layers[layers["channels_kept"].notna()].groupby("round")["channels_kept"].unique()
    wanted = [kept_channels(ratio, HIDDEN) for ratio in (1.0, 0.5, 0.25, 0.25)]
    assert [numbers.tolist() for numbers in kept] == [[number] for number in wanted]


@pytest.mark.integration
def test_layers_own_ratios_are_where_it_leads_to(tmp_path: Path) -> None:
    options = {"name": "spatl", "keep_layers": {"encoder.1": 0.25}, "keep_schedule": {"rounds": 1}}
    ran(small(tmp_path, options, rounds=2))
    kept = table(tmp_path, "layers").dropna(subset="channels_kept").groupby("round")
    assert kept["channels_kept"].unique().map(list).tolist() == [[16], [4]]


class Masks(Callback):
    """Notes client 0's mask after each round."""

    def __init__(self, backend: SerialBackend) -> None:
        self.backend = backend
        self.found: list[np.ndarray] = []

    def round_ended(self, row: Mapping[str, object]) -> None:
        self.found.append(self.backend.worker.store.read(0, len(self.found))["selected"])


@pytest.mark.integration
def test_a_mask_is_repeated_and_costs_no_bytes_then(tmp_path: Path) -> None:
    """At random masks differ from round to round; both sides remember the last one."""
    options = {"name": "spatl", "keep": 0.25, "criterion": "random", "mask_every": 3}
    experiment = small(tmp_path, options, rounds=5)
    backend = serial(experiment)
    noted = Masks(backend)
    run(experiment, backend=backend, callbacks=[noted])
    repeats = [np.array_equal(a, b) for a, b in pairwise(noted.found)]
    assert repeats == [True, True, False, True]
    up = table(tmp_path, "clients").query("client == 0")["bytes_up"].to_numpy()
    assert (up[[0, 3]] - up[1]).tolist() == [packed_size(HIDDEN)] * 2
    assert up[1] == up[2] == up[4]


@pytest.mark.integration
def test_each_participation_counts_not_each_round(tmp_path: Path) -> None:
    """Round robin: a client takes part in every second round, and repeats every second mask."""
    options = {"name": "spatl", "keep": 0.25, "criterion": "random", "mask_every": 2}
    fields: dict[str, Any] = {"sampler": "round_robin", "sample_ratio": 0.5}
    ran(small(tmp_path, options, rounds=8, **fields))
    clients = table(tmp_path, "clients").query("participated").sort_values("round")
    for _, own in clients.groupby("client"):
        up = own["bytes_up"].to_numpy()
        assert (up - up.min()).tolist() == [packed_size(HIDDEN), 0] * 2


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            {"mask_every": 2, "selection": False},
            "mask_every must be left out without selection, got 2",
        ),
        (
            {"keep_schedule": {"rounds": 3}, "selection": False},
            "keep_schedule must be left out without selection",
        ),
        (
            {"keep_schedule": {"rounds": 3}, "agent": {}},
            "keep_schedule must be left out with agent, which decides on it",
        ),
        ({"keep_schedule": {"rounds": 3, "start": 0.0}}, "keep_schedule.start"),
    ],
)
def test_what_has_no_meaning_is_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        experiment_from({"algorithm": {"name": "spatl", **options}})
