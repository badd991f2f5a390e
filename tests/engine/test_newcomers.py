"""Clients that never take part: who they are, and how their models are fitted when they are evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_runs import ran, same_bits, serial, small, table

from spatl_ray import seeding
from spatl_ray.config import Experiment
from spatl_ray.engine.backend import EvaluationPlan, SerialBackend
from spatl_ray.engine.messages import PanelMember
from spatl_ray.engine.prepare import prepare
from spatl_ray.errors import ConfigError
from spatl_ray.federation.availability import newcomers
from spatl_ray.parameters import ModelVector
from spatl_ray.training.evaluate import Score
from spatl_ray.training.local import LocalTask, Phase

pytestmark = pytest.mark.integration

NEW: dict[str, Any] = {"availability": {"name": "newcomers", "share": 1 / 3}, "sample_ratio": 2 / 3}
"""Two of six clients never train, the others in every round."""


def new_of(experiment: Experiment) -> list[int]:
    """The newcomers."""
    bits = newcomers(experiment.availability, experiment.clients, experiment.seed)
    clients: list[int] = np.flatnonzero(bits).tolist()
    return clients


def of_newcomers(folder: Path) -> pd.DataFrame:
    """Their rows of the last round."""
    clients = table(folder, "clients")
    return clients[(clients["round"] == 2) & (clients["evaluated_as"] != "trained")]


def test_newcomers_never_train_and_are_evaluated_apart(tmp_path: Path) -> None:
    experiment = small(tmp_path, **NEW)
    ran(experiment)
    clients, new = table(tmp_path, "clients"), new_of(experiment)
    assert len(new) == 2
    assert clients["client"][clients["participated"]].tolist() == 3 * sorted({*range(6)} - {*new})
    assert of_newcomers(tmp_path)["client"].tolist() == new
    rounds = table(tmp_path, "rounds")
    assert rounds["untrained_clients"].tolist() == [2, 2, 2]
    assert rounds["untrained_local_test_accuracy_mean"].notna().all()


def test_newcomers_leave_control_variates_the_mean_of_those_who_train(tmp_path: Path) -> None:
    """With a share in the objective, their c_i = 0 would shrink it."""
    experiment = small(tmp_path, "scaffold", objective="uniform", **NEW)
    _, backend = ran(experiment)
    others = sorted({*range(6)} - {*new_of(experiment)})
    own = [backend.worker.store.read(client, 2)["control"] for client in others]
    assert np.abs(own).max() > 1e-3
    assert backend.arrays()["control"] == pytest.approx(np.mean(own, axis=0), abs=1e-6)


def test_newcomers_alone_are_refused(tmp_path: Path) -> None:
    availability = {"name": "newcomers", "share": 0.9}
    rule = r"availability\.share must have some client in one of the rounds 0 to 2, got none"
    with pytest.raises(ConfigError, match=rule):
        prepare(small(tmp_path, clients=2, availability=availability))


def scored(backend: SerialBackend, client: int, monkeypatch: pytest.MonkeyPatch) -> ModelVector:
    """The model that is scored on a client's own splits after the last round."""
    evaluator, models = backend.worker.evaluator, list[ModelVector]()
    score = evaluator.score

    def recording(vector: ModelVector, of: int, split: Any) -> Score | None:
        models.append(vector)
        return score(vector, of, split)

    monkeypatch.setattr(evaluator, "score", recording)
    backend.evaluate(EvaluationPlan(3, 0.05, (PanelMember(client),), (1.0,)))
    return models[0]


@pytest.mark.parametrize("how", ["transfer", "finetune", "scratch"])
def test_a_fit_is_a_training_of_what_it_says_on_its_share_of_the_samples(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as the trainer gives by hand: of the received or the initial model, all or a part."""
    evaluation = {"untrained": how, "transfer_share": 0.2, "transfer_lr": 0.1, "transfer_epochs": 3}
    experiment = small(tmp_path, "fedper", evaluation=evaluation, **NEW)
    _, backend = ran(experiment)
    worker, (client, _) = backend.worker, new_of(experiment)
    initial, n = worker.blueprint.initial, worker.algorithm.layout.shared.size
    start = initial
    if how != "scratch":
        parameters = np.concatenate([backend.arrays()["model"], initial.parameters[n:]])
        start = ModelVector(parameters, initial.buffers)
    x, y = worker.population.samples(client, "train")
    rows = seeding.generator(experiment.seed, "train share", client=client).permutation(len(y))
    few = np.sort(rows[: round(0.2 * len(y))])
    phase = Phase(frozenset({"predictor"}) if how == "transfer" else None, epochs=3)
    generator = seeding.generator(experiment.seed, how, 3, client)
    task = LocalTask(start, phases=(phase,))
    expected = worker.trainer.run(task, x[few], y[few], 0.1, generator).end
    assert (
        scored(backend, client, monkeypatch).parameters.tobytes() == expected.parameters.tobytes()
    )
    assert (expected.parameters[:n] == start.parameters[:n]).all() == (how == "transfer")


def test_from_scratch_newcomers_are_the_same_whatever_the_algorithm(tmp_path: Path) -> None:
    """Also with a shared predictor, which lies in the same model."""
    evaluation = {"untrained": "scratch", "transfer_share": 0.5}
    losses = []
    for algorithm in ({"name": "fedavg"}, {"name": "spatl", "shared_predictor": True}):
        folder = tmp_path / str(algorithm["name"])
        ran(small(folder, algorithm, evaluation=evaluation, **NEW))
        losses.append(of_newcomers(folder)["local_test_loss"].tolist())
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]


def test_fits_of_newcomers_change_nothing_else(tmp_path: Path) -> None:
    backends, trained = [], []
    for how in ("initial", "transfer", "finetune", "scratch"):
        evaluation = {"untrained": how, "transfer_epochs": 5}
        _, backend = ran(small(tmp_path / how, "fedper", evaluation=evaluation, **NEW))
        backends.append(backend)
        clients = table(tmp_path / how, "clients")
        trained.append(clients["local_test_loss"][clients["evaluated_as"] == "trained"].tolist())
    assert all(same_bits(backends[0].arrays(), each.arrays()) for each in backends[1:])
    assert all(trained[0] == each for each in trained[1:])


def test_fine_tuning_before_evaluation_takes_a_newcomers_share_too(tmp_path: Path) -> None:
    costs = {}
    for share in (0.1, 1.0):
        evaluation = {"finetune": {"epochs": 2}, "transfer_share": share}
        ran(small(tmp_path / str(share), evaluation=evaluation, **NEW))
        clients = table(tmp_path / str(share), "clients").groupby("evaluated_as")["finetune_flops"]
        costs[share] = clients.sum()
    assert costs[0.1]["trained"] == costs[1.0]["trained"]
    assert costs[0.1]["initial"] == pytest.approx(0.1 * costs[1.0]["initial"], rel=0.02)


def test_smaller_shares_are_parts_of_larger_ones_and_never_empty(tmp_path: Path) -> None:
    backend = serial(small(tmp_path))
    backend.start()
    population = backend.worker.population
    whole = population.indexed(1, "train").rows
    assert whole is not None
    before: set[int] = set()
    for share in (1e-6, 0.05, 0.2, 0.5, 1.0):
        rows = population.indexed(1, "train", share).rows
        assert rows is not None
        assert len(rows) == max(1, round(share * len(whole)))
        assert before <= set(rows.tolist())
        before = set(rows.tolist())
    assert before == set(whole.tolist())
    other = population.indexed(2, "train", 0.2).rows
    assert other is not None
    assert not set(other.tolist()) & before
