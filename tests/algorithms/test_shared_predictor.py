"""A shared predictor beside the local ones: a global model that costs the personal ones nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import HIDDEN, ran, same_bits, small, table
from torch import Tensor, nn
from torch.nn import functional

from spatl_ray.config import Experiment
from spatl_ray.engine.backend import SerialBackend
from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from
from spatl_ray.models.heads import SHARED_PREDICTOR

pytestmark = pytest.mark.integration

HEAD = HIDDEN * 10 + 10
ALGORITHMS: dict[str, dict[str, Any]] = {
    "fedper": {"name": "fedper"},
    "spatl": {"name": "spatl", "keep": 0.5},
    "sent": {"name": "spatl", "keep": 0.5, "control": {"variate": "sent"}},
}
SKEWED: dict[str, Any] = {"partition": {"name": "classes", "k": 2}}


def both(folder: Path, name: str, **fields: Any) -> tuple[SerialBackend, SerialBackend]:
    """A run without and one with the shared predictor, in folders `without` and `with`."""
    options = ALGORITHMS[name]
    with_options = {**options, "shared_predictor": True}
    _, without = ran(small(folder / "without", options, **SKEWED, **fields))
    _, with_ = ran(small(folder / "with", with_options, **SKEWED, **fields))
    return without, with_


def head_of(backend: SerialBackend, vector: str = "model") -> np.ndarray:
    """The shared predictor on the server."""
    (span,) = backend.aggregator.algorithm.layout.shared.ranges(frozenset({SHARED_PREDICTOR}))
    return np.asarray(backend.arrays()[vector][span])


@pytest.mark.parametrize("name", ["fedper", "spatl"])
def test_encoder_and_personal_predictors_are_those_of_a_run_without_it(
    tmp_path: Path, name: str
) -> None:
    """To the bit: it sees the encoder's features, and the encoder does not see its loss."""
    without, with_ = both(tmp_path, name)
    encoder = without.aggregator.algorithm.layout.shared.size
    assert same_bits(
        {n: array[:encoder] for n, array in with_.arrays().items()}, dict(without.arrays())
    )
    for client in range(6):
        plain, own = (b.worker.store.read(client, 2) for b in (without, with_))
        assert plain["local"].tobytes() == own["local"].tobytes()
        assert not np.array_equal(own["local"], head_of(with_))
    rounds = [table(tmp_path / name, "rounds") for name in ("without", "with")]
    for column in ("panel_local_test_accuracy_mean", "train_loss"):
        assert rounds[0][column].tolist() == rounds[1][column].tolist()


@pytest.mark.parametrize(
    ("name", "up", "down"), [("fedper", 1, 1), ("spatl", 1, 2), ("sent", 2, 2)]
)
def test_its_bytes_are_counted(tmp_path: Path, name: str, up: int, down: int) -> None:
    """Its parameters, and their control variates where those travel."""
    both(tmp_path, name, rounds=1)
    before, after = (table(tmp_path / name, "clients") for name in ("without", "with"))
    assert (after["bytes_up"] - before["bytes_up"] == up * 4 * HEAD).all()
    assert (after["bytes_down"] - before["bytes_down"] == down * 4 * HEAD).all()


@pytest.mark.parametrize("name", ["fedper", "spatl"])
def test_encoder_and_shared_predictor_are_the_global_model(tmp_path: Path, name: str) -> None:
    """Under label skew it is better on the global test set than the mean of the personal ones."""
    without, with_ = both(tmp_path, name, rounds=6)
    algorithm, arrays = with_.aggregator.algorithm, with_.arrays()
    assert without.aggregator.global_model() is None
    model = algorithm.global_model(arrays)
    assert model is not None
    views = algorithm.layout.parameters.views(model.parameters)
    x, y = with_.worker.population.global_x, with_.worker.population.global_y
    first = (_tensor(views[f"encoder.1.{name}"]) for name in ("weight", "bias"))
    hidden = functional.relu(functional.linear(x.flatten(1), *first))
    weight, bias = np.split(head_of(with_), [HIDDEN * 10])
    logits = functional.linear(hidden, _tensor(weight.reshape(10, HIDDEN)), _tensor(bias))
    accuracy = float((logits.argmax(dim=1) == y).float().mean())
    last = table(tmp_path / "with", "rounds").iloc[-1]
    assert last["global_test_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    personal = table(tmp_path / "without", "rounds").iloc[-1]["global_test_accuracy"]
    assert last["global_test_accuracy"] > personal + 0.15


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.copy())


def test_the_encoder_can_learn_from_both(tmp_path: Path) -> None:
    """In one step of SGD with equal predictors it moves twice as far as with one."""
    training = {"steps": 1, "momentum": 0.0, "dtype": "float64"}
    fields: dict[str, Any] = {"rounds": 1, "training": training}
    options = {"name": "fedper", "shared_predictor": True, "shared_trains_encoder": True}
    _, alone = ran(small(tmp_path / "alone", "fedper", **fields))
    _, together = ran(small(tmp_path / "together", options, **fields))
    start = alone.worker.blueprint.initial.parameters
    n = alone.aggregator.algorithm.layout.shared.size
    once, twice = (b.arrays()["model"][:n] - start[:n] for b in (alone, together))
    assert np.abs(once).max() > 1e-4
    assert twice == pytest.approx(2 * once, abs=1e-14)


@pytest.mark.parametrize("name", ["fedper", "spatl"])
def test_of_one_client_it_is_the_personal_one(tmp_path: Path, name: str) -> None:
    """Both begin alike, see the same features and have the same loss; c - c_i is 0."""
    options = {**ALGORITHMS[name], "shared_predictor": True}
    fields: dict[str, Any] = {"training": {"lr": 0.05, "dtype": "float64"}}
    _, backend = ran(small(tmp_path, options, clients=1, rounds=4, **fields))
    own = backend.worker.store.read(0, 3)["local"]
    assert head_of(backend) == pytest.approx(own, abs=1e-12)
    assert np.abs(own).max() > 0.1


def test_its_control_variate_is_the_mean_of_the_clients(tmp_path: Path) -> None:
    """The correction covers it: under label skew it would drift otherwise."""
    options = {**ALGORITHMS["spatl"], "shared_predictor": True}
    _, backend = ran(small(tmp_path, options, objective="uniform", **SKEWED))
    (span,) = backend.aggregator.algorithm.layout.shared.ranges(frozenset({SHARED_PREDICTOR}))
    own = [backend.worker.store.read(client, 2)["control"][span] for client in range(6)]
    assert np.abs(own).max() > 1e-2
    assert head_of(backend, "control") == pytest.approx(np.mean(own, axis=0), abs=1e-6)


def test_what_trains_for_an_evaluation_only_leaves_it_out(tmp_path: Path) -> None:
    """Its logits beside the own ones would be taken for more classes."""
    evaluation = {"finetune": {"epochs": 2}, "untrained": "scratch"}
    fields: dict[str, Any] = {"evaluation": evaluation, "sample_ratio": 0.5, "rounds": 2}
    both(tmp_path, "fedper", **fields)
    before, after = (table(tmp_path / name, "clients") for name in ("without", "with"))
    for column in ("local_test_accuracy", "local_test_loss", "evaluated_as"):
        assert before[column].tolist() == after[column].tolist()


@pytest.mark.parametrize("how", ["transfer", "finetune"])
def test_who_never_trained_is_fitted_from_the_shared_predictor(tmp_path: Path, how: str) -> None:
    """At a rate that moves nothing, its model is the global one; and it learns at another."""
    losses = {}
    for lr in (1e-30, 0.1):
        evaluation = {"untrained": how, "transfer_lr": lr, "transfer_epochs": 5}
        fields = {"evaluation": evaluation, "sample_ratio": 0.5, "rounds": 2}
        options = {**ALGORITHMS["fedper"], "shared_predictor": True}
        _, backend = ran(small(tmp_path / str(lr), options, **SKEWED, **fields))
        whole = backend.aggregator.global_model()
        assert whole is not None
        rows = table(tmp_path / str(lr), "clients")
        rows = rows[(rows["round"] == 1) & (rows["evaluated_as"] == how)].set_index("client")
        losses[lr] = rows["local_test_loss"]
        scores = [backend.worker.evaluator.score(whole, c, "test") for c in rows.index]
        received = [score.loss for score in scores if score is not None]
        assert (losses[lr].tolist() == received) == (lr < 0.1)
    assert len(losses[0.1]) > 0
    assert losses[0.1].mean() < losses[1e-30].mean()


class Squashed(nn.Module):
    """A network with something behind its predictor."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
        self.predictor = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return functional.log_softmax(self.predictor(self.encoder(x)), dim=1)


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (
            {"name": "test_shared_predictor:Squashed"},
            "whose predictor does not come last, got true",
        ),
        (
            {"name": "mlp", "options": {"hidden": [4, 4]}, "predictor": ["encoder.3", "predictor"]},
            "predictor of several submodules, got encoder.3, predictor",
        ),
    ],
)
def test_networks_that_cannot_have_it_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], fault: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with pytest.raises(ConfigError, match=fault):
        ran(small(tmp_path, {"name": "fedper", "shared_predictor": True}, model=model))


def test_a_predictor_that_is_shared_needs_no_second_one() -> None:
    options = {"name": "spatl", "transfer": False, "shared_predictor": True}
    with pytest.raises(ConfigError, match=r"shared_predictor must be false without transfer"):
        experiment_from({"algorithm": options})


def test_the_field_changes_the_run_id_only_where_it_is_set() -> None:
    plain: Experiment = experiment_from({"algorithm": {"name": "fedper"}})
    off = experiment_from({"algorithm": {"name": "fedper", "shared_predictor": False}})
    on = experiment_from({"algorithm": {"name": "fedper", "shared_predictor": True}})
    assert plain.run_id == off.run_id != on.run_id
