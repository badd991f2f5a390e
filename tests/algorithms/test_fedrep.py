"""FedRep trains its head on the body that it received, then the body under that head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_runs import ran, serial, small, table

from spatl_ray import seeding
from spatl_ray.models.split import ENCODER, PREDICTOR
from spatl_ray.training.local import LocalTask, Phase

pytestmark = pytest.mark.integration

OPTIONS = {"name": "fedrep", "head_epochs": 2}


def test_a_round_is_the_head_on_the_received_body_then_the_body_under_the_new_head(
    tmp_path: Path,
) -> None:
    experiment = small(tmp_path / "run", OPTIONS, rounds=1, clients=1)
    _, backend = ran(experiment)
    again = serial(small(tmp_path / "again", OPTIONS, rounds=1, clients=1))
    again.start()
    worker, shared = again.worker, again.worker.algorithm.layout.shared.size
    x, y = worker.population.samples(0, "train")
    # The order of the samples: one generator for both phases, as for one task.
    draws = seeding.generator(experiment.seed, "train 0", 0, 0)
    first = worker.blueprint.initial
    head = LocalTask(first, phases=(Phase(frozenset({PREDICTOR}), epochs=2),))
    fitted = worker.trainer.run(head, x, y, 0.05, draws).end
    body = LocalTask(fitted, phases=(Phase(frozenset({ENCODER}), epochs=1),))
    expected = worker.trainer.run(body, x, y, 0.05, draws).end.parameters
    # x + (y - x) in float32: the server's model is the client's up to a rounding.
    assert backend.arrays()["model"] == pytest.approx(expected[:shared], abs=1e-7)
    assert np.array_equal(backend.worker.store.read(0, 0)["local"], expected[shared:])
    assert np.abs(expected - first.parameters)[:shared].max() > 1e-3


def test_steps_are_both_phases_and_the_head_stays(tmp_path: Path) -> None:
    _, backend = ran(small(tmp_path, OPTIONS, training={"epochs": 3}))
    clients = table(tmp_path, "clients")
    assert (clients["steps"] == 5 * np.ceil(clients["samples"] / 64)).all()
    parts = {segment.part for segment in backend.aggregator.algorithm.layout.shared.segments}
    assert parts == {ENCODER}


def test_body_epochs_can_be_steps(tmp_path: Path) -> None:
    ran(small(tmp_path, OPTIONS, rounds=1, training={"steps": 7}))
    clients = table(tmp_path, "clients")
    assert (clients["steps"] == 7 + 2 * np.ceil(clients["samples"] / 64)).all()
