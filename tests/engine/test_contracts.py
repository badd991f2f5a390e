"""Published methods and later features, each in a few lines on the hooks (tests/support/sketches)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from client_rounds import committed
from quadratics import OnQuadratics, experiment, play, problem
from safetensors.numpy import load_file
from sketches import FedDyn
from small_runs import serial
from torch.nn import functional

import analysis.load
from spatl_ray import run
from spatl_ray.config import Experiment, Model, Training
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.experiments import experiment_from
from spatl_ray.models.flat import FlatModel, make_layout
from spatl_ray.models.split import build_model
from spatl_ray.training.local import LocalTask, Trainer

pytestmark = pytest.mark.integration


class QuadraticFedDyn(OnQuadratics, FedDyn):
    """FedDyn on quadratics."""


def on_digits(path: Path, name: str, **overrides: Any) -> Experiment:
    """Three rounds on the digits."""
    options = overrides.pop("options", {})
    return experiment_from(
        {
            "rounds": 3,
            "clients": 6,
            "model": {"name": "mlp", "options": {"hidden": [16]}},
            "algorithm": {"name": name, "options": options} if ":" in name else {"name": name},
            "training": {"lr": 0.05},
            "engine": {"backend": "serial"},
            "results": {"folder": str(path)},
            **overrides,
        }
    )


def table(path: Path, name: str) -> Any:
    return analysis.load.load(path, name)


def server(path: Path, experiment: Experiment) -> dict[str, Any]:
    return load_file(path / "models" / f"run_id={experiment.run_id}" / "server.safetensors")


def test_feddyn_ends_at_the_optimum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dual variables need accumulators with weights and denominators of their own."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    a = np.array([1.0, 2.0, 0.5, 3.0])
    b = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32).astype(np.float64)
    name, training = "test_contracts:QuadraticFedDyn", {"steps": 20}
    setting = experiment(name, 4, 90, training=training, options={"alpha": 1.0})
    backend, _ = play(setting, problem(a, b), tmp_path)
    optimum = (a[:, None] * b).sum(axis=0) / a.sum()
    assert backend.arrays()["model"] == pytest.approx(optimum, abs=1e-5)


def test_fedbabu_never_moves_the_head(tmp_path: Path) -> None:
    body, whole = on_digits(tmp_path, "sketches:FedBabu"), on_digits(tmp_path, "fedavg")
    run(body)
    run(whole)
    kept, moved = server(tmp_path, body), server(tmp_path, whole)
    start = on_digits(tmp_path / "start", "sketches:FedBabu", rounds=1, training={"lr": 1e-30})
    run(start)
    initial = server(tmp_path / "start", start)
    name = "model/predictor.weight"
    assert np.array_equal(kept[name], initial[name])
    assert not np.array_equal(moved[name], initial[name])


def test_ditto_keeps_a_second_model_a_client(tmp_path: Path) -> None:
    """Its common model is FedAvg's to the bit; its personal ones are its clients' own."""
    ditto = on_digits(tmp_path, "sketches:Ditto", options={"lam": 0.1})
    plain = on_digits(tmp_path, "fedavg")
    run(ditto)
    run(plain)
    assert_same(server(tmp_path, ditto), server(tmp_path, plain))
    rows = table(tmp_path, "clients")
    personal = rows[(rows["run_id"] == ditto.run_id) & (rows["round"] == 2)]
    assert personal["global_test_accuracy"].nunique() > 1


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


@pytest.mark.parametrize("sample_ratio", [1.0, 0.5])
def test_downlinks_may_be_differences(tmp_path: Path, sample_ratio: float) -> None:
    """What a client receives depends on what it had; the model is FedAvg's to the bit."""
    options = {"sample_ratio": sample_ratio}
    thrifty = on_digits(tmp_path, "sketches:Differences", **options)
    plain = on_digits(tmp_path, "fedavg", **options)
    run(thrifty)
    run(plain)
    got = server(tmp_path, thrifty)
    del got["known"]
    assert_same(got, server(tmp_path, plain))


def test_downlink_bytes_are_counted_for_each_client(tmp_path: Path) -> None:
    """The first time a client gets every position; nothing changed in round 1 if lr is tiny."""
    still = on_digits(tmp_path, "sketches:Differences", training={"lr": 1e-30})
    run(still)
    rows = table(tmp_path, "clients").set_index(["round", "client"])["bytes_down"]
    size = 64 * 16 + 16 + 16 * 10 + 10
    assert (rows.loc[0] >= 4 * size).all()
    assert (rows.loc[1] < 100).all()


def test_a_local_and_a_shared_predictor_at_once(tmp_path: Path) -> None:
    experiment = on_digits(tmp_path, "sketches:DualPredictor", rounds=8)
    run(experiment)
    names = server(tmp_path, experiment).keys()
    assert any("predictor.shared" in name for name in names)
    assert not any("predictor.local" in name for name in names)
    last = table(tmp_path, "rounds").iloc[-1]
    own = table(tmp_path, "clients").query("round == 7")["global_test_accuracy"].mean()
    # The one global model is not the mean of the personal ones.
    assert last["global_test_accuracy"] != pytest.approx(own)
    assert last["global_test_accuracy"] > own


def test_a_selector_keeps_its_own_state_a_client(tmp_path: Path) -> None:
    experiment = on_digits(tmp_path, "sketches:WithAgentState", sample_ratio=0.5)
    run(experiment)
    layers = table(tmp_path, "layers")
    assert (layers["channels_kept"] == layers["channels"] // 2).all()
    clients = table(tmp_path, "clients").query("participated")
    backend = serial(experiment)
    backend.start()
    for client, last in committed(experiment).items():
        turns = backend.worker.store.read(client, last)["turns"]
        assert turns.tolist() == [(clients["client"] == client).sum()]
    assert clients["client"].value_counts().max() > 1


@pytest.mark.parametrize("name", ["fedavg", "spatl", "scaffold", "sketches:Differences"])
def test_a_rule_may_need_every_update(tmp_path: Path, name: str) -> None:
    """The median runs through payloads that reach the aggregator, and ends elsewhere."""
    mean = on_digits(tmp_path, name)
    median = on_digits(tmp_path, name, aggregation={"rule": "median"})
    run(mean)
    run(median)
    first, second = server(tmp_path, mean), server(tmp_path, median)
    assert not np.array_equal(first["model/encoder.1.weight"], second["model/encoder.1.weight"])
    rounds = table(tmp_path, "rounds").set_index("run_id")
    assert (rounds.loc[median.run_id, "accepted"] == 6).all()
    assert rounds.loc[median.run_id, "local_test_accuracy_mean"].iloc[-1] > 0.2


def test_a_group_of_clients_can_be_trained_together() -> None:
    """A local task is data: a batched loop over stacked tasks gives what the one loop gives.

    Here with torch.func.vmap over three clients with offsets and proximal terms of their own, as a
    GPU would train a group; batches are drawn as the loop draws them.
    """
    split = build_model(
        Model(name="mlp", options={"hidden": [8]}), SampleSpec((6,), 4), 0, torch.float64
    )
    layout = make_layout(split, (), {}, lambda part: True, "average")
    model = FlatModel(split, layout, torch.device("cpu"))
    training = Training(epochs=2, batch_size=5, lr=0.1, momentum=0.5, dtype="float64")
    start, size = model.read(), layout.shared.size
    draw = np.random.default_rng(0)
    x, y = (
        torch.from_numpy(draw.normal(size=(3, 20, 6))),
        torch.from_numpy(draw.integers(0, 4, (3, 20))),
    )
    offsets = draw.normal(size=(3, size)) * 0.1
    tasks = [LocalTask(start, offset, mu=0.3, anchor=start.parameters) for offset in offsets]
    alone = [
        Trainer(model, training).run(task, x[i], y[i], 0.1, np.random.default_rng(i)).end.parameters
        for i, task in enumerate(tasks)
    ]

    def loss(flat: torch.Tensor, samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        named = {s.name: flat[s.span].view(s.shape) for s in layout.parameters.segments}
        output = torch.func.functional_call(split.module, named, (samples,))
        return functional.cross_entropy(output, labels)

    gradients = torch.func.vmap(torch.func.grad(loss))
    anchor = torch.from_numpy(np.stack([task.anchor for task in tasks]))
    flats, velocity = anchor.clone(), torch.zeros_like(anchor)
    generators = [np.random.default_rng(i) for i in range(3)]
    for _ in range(2):
        order = torch.from_numpy(np.stack([g.permutation(20) for g in generators]))
        for rows in order.split(5, dim=1):
            index = rows[:, :, None].expand(-1, -1, 6)
            gradient = gradients(flats, x.gather(1, index), y.gather(1, rows))
            gradient += torch.from_numpy(offsets) + 0.3 * (flats - anchor)
            velocity = 0.5 * velocity + gradient
            flats = flats - 0.1 * velocity
    assert np.stack(alone) == pytest.approx(flats.numpy(), abs=1e-12)
