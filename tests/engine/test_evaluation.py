"""Evaluation: who, when, on what, and what it must not touch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from client_rounds import committed
from cohort_draws import sample_cohort
from small_runs import HIDDEN, SIZE, ran, same_bits, saved, serial, small, table

from spatl_ray import run
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.engine.backend import EvaluationPlan, SerialBackend
from spatl_ray.engine.messages import PanelMember
from spatl_ray.engine.population import Population
from spatl_ray.engine.schedule import sample_panel
from spatl_ray.models.mlp import MLP
from spatl_ray.parameters import ModelVector
from spatl_ray.training.evaluate import Score
from spatl_ray.training.recalibrate import RECALIBRATION

pytestmark = pytest.mark.integration

ACCURACIES = [
    "local_test_accuracy",
    "local_validation_accuracy",
    "global_test_accuracy",
    "after_local_test_accuracy",
    "after_global_test_accuracy",
]


@pytest.mark.parametrize(("every", "due"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (9, [4])])
def test_every_k_rounds_and_after_the_last(tmp_path: Path, every: int, due: list[int]) -> None:
    run(small(tmp_path, "fedper", rounds=5, evaluation={"every": every}))
    rounds = table(tmp_path, "rounds").set_index("round")
    columns = [
        "global_test_accuracy",
        "global_test_loss",
        "local_test_accuracy_mean",
        "local_test_accuracy_p10",
        "local_test_loss_mean",
        "local_validation_accuracy_mean",
        "after_local_test_accuracy_mean",
        "after_global_test_accuracy_mean",
        "untrained_clients",
        "local_test_clients",
        "panel_clients",
        "panel_local_test_accuracy_mean",
    ]
    for column in columns:
        assert rounds.index[rounds[column].notna()].tolist() == due, column
    clients = table(tmp_path, "clients")
    for column in (*ACCURACIES, "evaluated_as"):
        assert sorted(clients["round"][clients[column].notna()].unique()) == due, column


def test_evaluation_does_not_change_the_run(tmp_path: Path) -> None:
    often = small(tmp_path, "scaffold", rounds=4, sample_ratio=0.5)
    seldom = small(tmp_path, "scaffold", rounds=4, sample_ratio=0.5, evaluation={"every": 4})
    run(often)
    run(seldom)
    assert same_bits(saved(often), saved(seldom))


def test_the_panel_is_fixed_and_seeded(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"clients": 12, "sample_ratio": 0.5, "evaluation": {"panel": 4}}
    experiment = small(tmp_path, "fedper", **fields)
    run(experiment)
    panel = sample_panel(experiment).tolist()
    clients = table(tmp_path, "clients")
    for round_, rows in clients.groupby("round"):
        assert rows["client"][rows["evaluated_as"].notna()].tolist() == panel
        cohort = sample_cohort(experiment, int(round_)).tolist()
        assert rows["client"][rows["participated"]].tolist() == cohort
        # Right after training only those of the panel who trained are measured.
        measured = rows["client"][rows["after_local_test_accuracy"].notna()]
        assert measured.tolist() == sorted(set(panel) & set(cohort))
    other = small(tmp_path, "fedper", seed=1, **fields)
    assert sample_panel(other).tolist() != panel


def untrained(folder: Path, how: str, algorithm: str = "fedper") -> tuple[Any, SerialBackend]:
    """Two rounds in which 3 of 9 clients train; all are on the panel."""
    evaluation = {"untrained": how, "transfer_epochs": 3}
    fields: dict[str, Any] = {"clients": 9, "sample_ratio": 1 / 3, "rounds": 2}
    experiment = small(folder, algorithm, evaluation=evaluation, **fields)
    return experiment, ran(experiment)[1]


@pytest.mark.parametrize("algorithm", ["fedavg", "fedper", "spatl"])
def test_clients_that_never_trained_are_apart(tmp_path: Path, algorithm: str) -> None:
    rows, rounds = {}, {}
    for how in ("initial", "transfer", "skip"):
        experiment, _ = untrained(tmp_path / how, how, algorithm)
        trained: set[int] = set()
        clients = table(tmp_path / how, "clients")
        for round_ in range(2):
            trained |= set(sample_cohort(experiment, round_).tolist())
            now = clients[clients["round"] == round_].set_index("client")["evaluated_as"].dropna()
            assert set(now.index[now == "trained"]) == trained
            assert set(now.index[now == how]) == (set() if how == "skip" else {*range(9)} - trained)
        rows[how] = clients[clients["round"] == 1].set_index("client")
        rounds[how] = table(tmp_path / how, "rounds").set_index("round")
    counts = {how: frame["untrained_clients"].tolist() for how, frame in rounds.items()}
    left = [6, 9 - len(trained)]
    assert counts == {"initial": left, "transfer": left, "skip": [0, 0]}
    never = sorted({*range(9)} - trained)
    mean = "untrained_local_test_accuracy_mean"
    assert rounds["skip"][mean].isna().all()
    for how in ("initial", "transfer"):
        own = rows[how].loc[never, "local_test_accuracy"].mean()
        assert rounds[how].loc[1, mean] == pytest.approx(own)
        everywhere = rows[how].loc[never, "global_test_accuracy"].mean()
        column = "untrained_global_test_accuracy_mean"
        assert rounds[how].loc[1, column] == pytest.approx(everywhere)
    # What trained is the same in all three, to the bit.
    others = [column for column in rounds["skip"] if "accuracy" in column or "loss" in column]
    others = [column for column in others if not column.startswith(("untrained", "panel"))]
    for how in ("transfer", "skip"):
        assert rounds[how][others].equals(rounds["initial"][others])


def test_the_mean_is_over_clients_that_trained(tmp_path: Path) -> None:
    untrained(tmp_path, "initial")
    clients = table(tmp_path, "clients")
    final = clients[(clients["round"] == 1) & (clients["evaluated_as"] == "trained")]
    row = table(tmp_path, "rounds").iloc[-1]
    own = final["local_test_accuracy"]
    assert row["local_test_accuracy_mean"] == pytest.approx(own.mean(), rel=1e-15)
    assert row["local_test_accuracy_p10"] == pytest.approx(np.percentile(own, 10))
    assert row["global_test_accuracy"] == pytest.approx(final["global_test_accuracy"].mean())


def test_the_panel_mean_is_over_the_same_clients_in_every_round(tmp_path: Path) -> None:
    """3 of 9 clients train in a round, so that the mean over those that trained changes its members."""
    for how in ("initial", "transfer"):
        untrained(tmp_path / how, how)
        clients, rounds = table(tmp_path / how, "clients"), table(tmp_path / how, "rounds")
        own = clients.groupby("round")["local_test_accuracy"]
        assert rounds["panel_clients"].tolist() == own.count().tolist() == [9, 9]
        mean = rounds["panel_local_test_accuracy_mean"].to_numpy()
        assert mean == pytest.approx(own.mean().to_numpy(), rel=1e-15)
        has_trained = clients[clients["evaluated_as"] == "trained"].groupby("round").size()
        assert rounds["local_test_clients"].tolist() == has_trained.tolist()
        assert rounds["local_test_clients"][0] == 3


def test_the_panel_mean_is_unknown_until_those_that_are_skipped_have_trained(
    tmp_path: Path,
) -> None:
    evaluation = {"untrained": "skip"}
    fields: dict[str, Any] = {"sampler": "round_robin", "sample_ratio": 0.5, "rounds": 3}
    run(small(tmp_path, "fedper", evaluation=evaluation, **fields))
    rounds = table(tmp_path, "rounds")
    assert rounds["local_test_clients"].tolist() == [3, 6, 6]
    for column in ("panel_clients", "panel_local_test_accuracy_mean"):
        assert rounds[column].notna().tolist() == [False, True, True]
    whole = rounds[1:]
    assert whole["panel_clients"].tolist() == [6, 6]
    same = whole["panel_local_test_accuracy_mean"] == whole["local_test_accuracy_mean"]
    assert same.all()


@pytest.mark.parametrize("algorithm", ["fedavg", "fedper"])
def test_transfer_changes_the_predictor_only_and_commits_nothing(
    tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain = untrained(tmp_path / "initial", "initial", algorithm)
    _, backend = untrained(tmp_path / "transfer", "transfer", algorithm)
    assert same_bits(plain.arrays(), backend.arrays())
    store, reference = backend.worker.store, plain.worker.store
    for client, last in committed(backend.worker.experiment).items():
        assert same_bits(store.read(client, last), reference.read(client, last))
    files = sorted(path.name for path in store.folder.glob("*"))
    assert files == sorted(path.name for path in reference.folder.glob("*"))

    scored: list[ModelVector] = []
    evaluator = backend.worker.evaluator
    score = evaluator.score

    def recording(vector: ModelVector, client: int, split: Any) -> Score | None:
        scored.append(vector)
        return score(vector, client, split)

    monkeypatch.setattr(evaluator, "score", recording)
    never = next(c for c in range(9) if not took_part(backend, c))
    lr = 0.05
    evaluation = backend.evaluate(EvaluationPlan(2, lr, (PanelMember(never),), (1.0,)))
    assert evaluation.clients[0].evaluated_as == "transfer"
    encoder = slice(0, 64 * HIDDEN + HIDDEN)
    begun = backend.arrays()["model"]
    fitted = scored[0].parameters
    assert fitted[encoder].tobytes() == begun[encoder].tobytes()
    assert len(fitted) == SIZE
    initial = backend.worker.blueprint.initial.parameters
    start = begun if algorithm == "fedavg" else initial
    assert not np.array_equal(fitted[encoder.stop :], start[encoder.stop :])


def took_part(backend: SerialBackend, client: int) -> bool:
    """Whether the client took part in one of the two rounds."""
    experiment = backend.worker.experiment
    return any(client in sample_cohort(experiment, round_) for round_ in range(2))


def test_transfer_fits_the_clients_own_data(tmp_path: Path) -> None:
    """On a frozen encoder a predictor fitted for 20 epochs beats the initial one by far."""
    means = {}
    for how in ("initial", "transfer"):
        evaluation = {"untrained": how, "transfer_epochs": 20}
        fields = {"sample_ratio": 1 / 6, "training": {"lr": 0.2}, "rounds": 1}
        run(small(tmp_path / how, "fedper", evaluation=evaluation, **fields))
        row = table(tmp_path / how, "rounds").iloc[-1]
        means[how] = row["untrained_global_test_accuracy_mean"]
    assert means["initial"] < 0.3
    assert means["transfer"] > 0.5


@pytest.mark.parametrize("algorithm", ["fedavg", "fedper"])
def test_empty_splits_give_nulls(tmp_path: Path, algorithm: str) -> None:
    run(small(tmp_path, algorithm, data={"split": {"train": 1.0, "validation": 0.0, "test": 0.0}}))
    rounds, clients = table(tmp_path, "rounds"), table(tmp_path, "clients")
    for column in rounds:
        if "local_test" in column or "local_validation" in column:
            is_count = column == "local_test_clients"
            assert (rounds[column] == 0 if is_count else rounds[column].isna()).all(), column
    assert (rounds["panel_clients"] == 0).all()
    assert rounds["global_test_accuracy"].notna().all()
    assert rounds["after_global_test_accuracy_mean"].notna().all()
    for column in ("local_test_accuracy", "local_test_loss", "local_validation_accuracy"):
        assert clients[column].isna().all()


def by_hand(experiment: Any, dataset: Dataset, rows: np.ndarray) -> Score:
    """The saved global model on the given test samples, with plain torch."""
    model = MLP(dataset.shape, dataset.classes, [HIDDEN])
    tensors = {name.removeprefix("model/"): value for name, value in saved(experiment).items()}
    named = {name: torch.from_numpy(tensors[name]) for name, _ in model.named_parameters()}
    model.load_state_dict(named)
    y = torch.from_numpy(dataset.test_y[rows])
    with torch.no_grad():
        logits = model(torch.from_numpy(dataset.test_x[rows]))
    loss = torch.nn.functional.cross_entropy(logits.double(), y)
    return Score(int((logits.argmax(1) == y).sum()), len(y), float(loss))


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold", "fednova"])
def test_a_shared_model_has_one_global_accuracy_that_of_the_saved_model(
    tmp_path: Path, algorithm: str
) -> None:
    experiment = small(tmp_path, algorithm)
    run(experiment)
    dataset = load_dataset(experiment.data, experiment.seed)
    expected = by_hand(experiment, dataset, np.arange(len(dataset.test_y)))
    last = table(tmp_path, "rounds").iloc[-1]
    assert last["global_test_accuracy"] == expected.accuracy
    assert last["global_test_loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert table(tmp_path, "clients")["global_test_accuracy"].isna().all()


def test_the_global_test_sample_has_the_stated_size_and_is_seeded(tmp_path: Path) -> None:
    experiment = small(tmp_path, evaluation={"global_samples": 50, "batch_size": 7})
    _, backend = ran(experiment)
    population = backend.worker.population
    assert population.global_x.shape == (50, 1, 8, 8)
    dataset = load_dataset(experiment.data, experiment.seed)
    chosen = rows_of(population, dataset)
    assert len(np.unique(chosen)) == 50
    expected = by_hand(experiment, dataset, chosen)
    last = table(tmp_path, "rounds").iloc[-1]
    assert last["global_test_accuracy"] == expected.accuracy
    assert last["global_test_loss"] == pytest.approx(expected.loss, rel=1e-5)
    data = backend.worker.population.data
    for seed, same in ((experiment.seed, True), (experiment.seed + 1, False)):
        again = Population(data, torch.device("cpu"), torch.float32, 50, seed)
        assert torch.equal(again.global_x, population.global_x) == same


def test_clients_models_may_be_scored_on_fewer_of_the_global_test_samples(tmp_path: Path) -> None:
    """A seeded part of those of the global model, which keeps all of its own."""
    evaluation = {"global_samples": 50, "client_global_samples": 20}
    for name, algorithm in (("one", "fedavg"), ("own", "fedper")):
        _, backend = ran(small(tmp_path / name, algorithm, evaluation=evaluation))
        population = backend.worker.population
        few, labels = population.client_global_test
        assert few.shape == (20, 1, 8, 8)
        rows = [int(r) for x in few for r in (population.global_x == x).all((1, 2, 3)).nonzero()]
        assert len(set(rows)) == 20
        assert torch.equal(population.global_y[rows], labels)
    one, own = (table(tmp_path / name, "rounds").iloc[-1] for name in ("one", "own"))
    assert round(one["global_test_accuracy"] * 50, 6).is_integer()
    assert round(one["after_global_test_accuracy_mean"] * 20 * 6, 6).is_integer()
    assert round(own["global_test_accuracy"] * 20 * 6, 6).is_integer()
    clients = table(tmp_path / "own", "clients")["global_test_accuracy"].dropna() * 20
    assert np.allclose(clients, clients.round())


def rows_of(population: Population, dataset: Dataset) -> np.ndarray:
    """Which test samples the population's global sample holds; all images of the digits differ."""
    sample = population.global_x.numpy().reshape(len(population.global_y), -1)
    every = dataset.test_x.reshape(len(dataset.test_y), -1)
    rows = (sample[:, None] == every[None]).all(axis=2)
    assert (rows.sum(axis=1) == 1).all()
    return rows.argmax(axis=1)


@pytest.mark.parametrize("samples", [None, 10_000])
def test_all_test_samples_if_none_or_too_many_are_asked(
    tmp_path: Path, samples: int | None
) -> None:
    _, backend = ran(small(tmp_path, rounds=1, evaluation={"global_samples": samples}))
    dataset = backend.worker.population.data.dataset
    assert np.array_equal(backend.worker.population.global_y.numpy(), dataset.test_y)


def test_a_model_for_inference_has_statistics_of_the_clients_own_samples(tmp_path: Path) -> None:
    experiment = small(tmp_path, "spatl", model={"name": "resnet20", "options": {"width": 2}})
    backend = serial(experiment)
    backend.start()
    worker = backend.worker
    model, layout = worker.blueprint.model, worker.algorithm.layout
    vector = worker.blueprint.initial
    bits = np.arange(layout.shared.channels) % 3 > 0

    kept = worker.evaluator.kept(vector, bits, client=1)
    assert np.array_equal(kept.parameters, vector.parameters * layout.parameters.expand(bits))
    x, _ = worker.population.sample(1, "train", RECALIBRATION)
    model.load(kept)
    model.evaluate()
    first = next(m for m in model.module.modules() if isinstance(m, torch.nn.BatchNorm2d))
    inputs: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        model.module(x)
    means = inputs[0].mean(dim=(0, 2, 3))
    assert torch.allclose(first.running_mean, means, atol=1e-6)
    again = worker.evaluator.kept(vector, bits, client=1)
    assert np.array_equal(kept.buffers, again.buffers)
    other = worker.evaluator.kept(vector, bits, client=2)
    assert not np.array_equal(kept.buffers, other.buffers)
