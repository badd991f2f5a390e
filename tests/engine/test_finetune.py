"""Fine-tuning before evaluation: what it scores, what it costs, and what it must not touch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import HIDDEN, ran, same_bits, small, table

from spatl_ray import seeding
from spatl_ray.engine.messages import EvaluationTask, PanelMember
from spatl_ray.models.split import PREDICTOR
from spatl_ray.training.local import LocalTask, Phase

pytestmark = pytest.mark.integration

SKEWED: dict[str, Any] = {"partition": {"name": "classes", "k": 2}}


def tuned(folder: Path, algorithm: str = "fedavg", **options: Any) -> Any:
    """A run whose panel is fine-tuned before its evaluation."""
    return small(folder, algorithm, evaluation={"finetune": options}, **SKEWED)


@pytest.mark.parametrize("algorithm", ["fedavg", "spatl"])
def test_it_changes_own_splits_only(tmp_path: Path, algorithm: str) -> None:
    """Model, states, bytes and the global columns are those of a run without it."""
    _, plain = ran(small(tmp_path / "plain", algorithm, **SKEWED))
    _, backend = ran(tuned(tmp_path / "tuned", algorithm, epochs=2))
    assert same_bits(plain.arrays(), backend.arrays())
    for client in range(6):
        assert same_bits(plain.worker.store.read(client, 2), backend.worker.store.read(client, 2))
    before, after = (table(tmp_path / name, "rounds") for name in ("plain", "tuned"))
    for column in ("bytes_up", "bytes_down", "global_test_accuracy", "global_test_loss"):
        assert before[column].tolist() == after[column].tolist(), column
    own = "local_test_accuracy_mean"
    assert (before[own] != after[own]).all()
    if algorithm == "fedavg":  # Two classes a client: adapting to them is most of the task.
        assert after[own].iloc[-1] > before[own].iloc[-1] + 0.2


@pytest.mark.parametrize(("parts", "lr"), [("all", None), ("predictor", 0.01)])
def test_it_is_one_more_local_training(tmp_path: Path, parts: str, lr: float | None) -> None:
    experiment = tuned(tmp_path, epochs=3, parts=parts, lr=lr)
    _, backend = ran(experiment)
    worker = backend.worker
    model = worker.algorithm.global_model(backend.arrays())
    assert model is not None
    phase = Phase(None if parts == "all" else frozenset({PREDICTOR}), epochs=3)
    x, y = worker.population.samples(1, "train")
    draws = seeding.generator(experiment.seed, "finetune", 3, 1)
    fitted = worker.trainer.run(LocalTask(model, phases=(phase,)), x, y, lr or 0.05, draws).end
    expected = worker.evaluator.score(fitted, 1, "test")
    last = table(tmp_path, "clients").query("round == 2 and client == 1").iloc[0]
    assert expected is not None
    assert (last["local_test_accuracy"], last["local_test_loss"]) == (
        expected.accuracy,
        expected.loss,
    )


def test_who_else_is_evaluated_changes_nothing(tmp_path: Path) -> None:
    """So the bits do not depend on the number of workers."""
    _, backend = ran(tuned(tmp_path))
    worker, broadcast = backend.worker, backend.aggregator.broadcast(3, range(6))
    members = [PanelMember(client, 2) for client in range(6)]

    def scores(chosen: list[PanelMember]) -> dict[int, Any]:
        task = EvaluationTask(3, 0.05, tuple(chosen), None)
        return {
            s.client: (s.local_test, s.local_validation)
            for s in worker.evaluate(task, broadcast)[0]
        }

    together = scores(members)
    alone = [scores([member]) for member in reversed(members)]
    assert together == {client: score for each in alone for client, score in each.items()}


@pytest.mark.parametrize("parts", ["all", "predictor"])
def test_its_operations_are_those_of_closed_forms(tmp_path: Path, parts: str) -> None:
    """64-16-10: two operations a multiplication; the first layer has no gradient of inputs."""
    ran(tuned(tmp_path, epochs=2, parts=parts))
    body, head = 2 * 64 * HIDDEN, 2 * HIDDEN * 10
    a_sample = 2 * body + 3 * head if parts == "all" else body + 2 * head
    clients, rounds = table(tmp_path, "clients"), table(tmp_path, "rounds")
    samples = clients["samples"].to_numpy()
    assert np.array_equal(clients["finetune_flops"], 2 * samples * a_sample)
    sums = clients.groupby("round")[["finetune_flops", "seconds_finetune"]].sum()
    for column in sums:
        assert rounds[column].to_numpy() == pytest.approx(sums[column].to_numpy())
    assert (rounds["seconds_finetune"] < rounds["seconds_evaluate"]).all()


def test_without_it_there_are_no_costs(tmp_path: Path) -> None:
    ran(small(tmp_path))
    for name in ("rounds", "clients"):
        assert table(tmp_path, name)[["finetune_flops", "seconds_finetune"]].isna().all(axis=None)
