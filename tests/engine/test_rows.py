"""What the tables say of costs, against numbers worked out by hand or counted on the wire."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import SIZE, images, ran, saved, small, table

from spatl_ray import run
from spatl_ray.algorithms.base import CONTROL, MODEL
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.data.memory import with_memory
from spatl_ray.engine import aggregator, local_rounds, rows
from spatl_ray.engine.blueprint import make_blueprint
from spatl_ray.engine.flops import training_flops
from spatl_ray.engine.messages import ClientReport, LayerReport, RoundOutcome
from spatl_ray.parameters import Space
from spatl_ray.update import Broadcast, Mask, Update
from spatl_ray.wire.codec import encode

pytestmark = pytest.mark.integration

ALGORITHMS: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "scaffold, sent": {"name": "scaffold", "control": {"variate": "sent"}},
    "spatl": {"name": "spatl", "keep": 0.3},
    "fedper": {"name": "fedper"},
    "fednova": {"name": "fednova"},
    "personal downlinks": {"name": "sketches:Differences"},
    "two heads": {"name": "sketches:DualPredictor"},
}


class Wire:
    """Every message that was encoded, by who sent it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.updates: dict[tuple[int, int], int] = {}
        self.broadcasts: dict[int, list[int]] = {}
        monkeypatch.setattr(local_rounds, "encode", self.encode)
        monkeypatch.setattr(aggregator, "encode", self.encode)

    def encode(
        self,
        message: Broadcast | Update,
        spaces: Mapping[str, Space],
        last: Mapping[str, Mask] | None = None,
    ) -> bytes:
        payload = encode(message, spaces, last)
        if isinstance(message, Update):
            self.updates[message.round, message.client] = len(payload)
        else:
            self.broadcasts.setdefault(message.round, []).append(len(payload))
        return payload


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("values", [None, "float16"])
def test_bytes_are_those_of_the_real_messages(
    tmp_path: Path, name: str, values: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(monkeypatch)
    fields: dict[str, Any] = {"sample_ratio": 0.5, "evaluation": {"every": 9, "panel": 1}}
    run(small(tmp_path, ALGORITHMS[name], wire={"uplink": values, "downlink": values}, **fields))
    clients = table(tmp_path, "clients").set_index(["round", "client"])
    took_part = clients[clients["participated"]]
    assert took_part["bytes_up"].to_dict() == wire.updates
    rounds = table(tmp_path, "rounds").set_index("round")
    for round_, row in rounds.iterrows():
        ups = [n for (r, _), n in wire.updates.items() if r == round_]
        common, *personal = wire.broadcasts[round_]
        assert len(ups) == row["participants"] == 3
        assert row["bytes_up"] == sum(ups)
        # One common payload, received by each of three; and one (maybe empty) for each alone.
        assert row["bytes_down"] == 3 * common + sum(personal[:3])
        assert took_part.loc[round_]["bytes_down"].sum() == row["bytes_down"]
    assert rounds["bytes_up_cumulative"].tolist() == rounds["bytes_up"].cumsum().tolist()
    assert rounds["bytes_down_cumulative"].tolist() == rounds["bytes_down"].cumsum().tolist()
    outside = clients[~clients["participated"]]
    assert not outside[["bytes_up", "bytes_down"]].to_numpy().any()


def test_bytes_of_fedavg_by_hand(tmp_path: Path) -> None:
    """An update: 31 bytes, 11 + 5 for the part "delta", 4 a value; a broadcast: 15 + 11 + 5 + 4 a value."""
    run(small(tmp_path))
    clients = table(tmp_path, "clients")
    assert set(clients["bytes_up"]) == {31 + 16 + 4 * SIZE}
    assert set(clients["bytes_down"]) == {15 + 16 + 4 * SIZE}


def test_local_only_sends_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch)
    experiment = small(tmp_path, "local_only")
    run(experiment)
    assert set(wire.updates.values()) == {0}
    assert {n for each in wire.broadcasts.values() for n in each} == {0}
    rounds, clients = table(tmp_path, "rounds"), table(tmp_path, "clients")
    bytes_of = [column for column in rounds if column.startswith("bytes")]
    assert not rounds[bytes_of].to_numpy().any()
    assert not clients[["bytes_up", "bytes_down"]].to_numpy().any()
    assert clients["density"].isna().all()
    assert (clients["status"] == "accepted").all()
    assert saved(experiment) == {}
    (row,) = table(tmp_path, "runs").to_dict("records")
    assert (row["shared_parameters"], row["local_parameters"]) == (0, SIZE)


def test_layers_by_hand(tmp_path: Path) -> None:
    """lenet on 16x16: rows of 25 + 1 and of 150 + 1 values; keep 0.5 of 6 and 16, 0.25 for inference."""
    algorithm = {"name": "spatl", "keep": 0.5, "inference": {"keep": 0.25}}
    run(small(tmp_path, algorithm, model="lenet"), dataset=images(16))
    layers = table(tmp_path, "layers")
    assert len(layers) == 3 * 6 * 2
    columns = ["channels", "channels_kept", "inference_channels_kept", "values", "bytes"]
    by_layer = layers.groupby("layer")[columns].agg(["min", "max"])
    assert by_layer.to_numpy().tolist() == [
        [6, 6, 3, 3, 2, 2, 3 * 26, 3 * 26, 4 * 3 * 26, 4 * 3 * 26],
        [16, 16, 8, 8, 4, 4, 8 * 151, 8 * 151, 4 * 8 * 151, 4 * 8 * 151],
    ]
    assert (layers["keep_ratio"] == 0.5).all()
    assert (
        layers["inference_keep_ratio"].tolist()
        == (layers["inference_channels_kept"] / layers["channels"]).tolist()
    )
    clients = table(tmp_path, "clients")
    assert (clients["density"] == 0.5).all()
    assert clients["inference_local_test_accuracy"].notna().all()
    # 31 bytes, a part "delta" of 16, its values, and a mask that fits in 3 bytes (22 channels).
    overhead = clients["bytes_up"] - layers.groupby(["round", "client"])["bytes"].sum().to_numpy()
    assert overhead.between(31 + 16, 31 + 16 + 3).all()


@pytest.mark.parametrize("keep", [0.25, 0.5, 1.0])
def test_density_is_the_share_that_travels(tmp_path: Path, keep: float) -> None:
    run(small(tmp_path, {"name": "spatl", "keep": keep}))
    assert (table(tmp_path, "clients")["density"] == keep).all()
    assert (table(tmp_path, "rounds")["density"] == keep).all()


def test_flops_of_lenet_by_hand(tmp_path: Path) -> None:
    """Two operations a multiplication; forward, and twice that backward.

    On 1x28x28: convolutions 25 * 6 * 24^2 and 150 * 16 * 8^2, then 256 * 120, 120 * 84, 84 * 10. The
    first layer's input needs no gradient: it costs 2 passes, the others 3.
    """
    first, second = 25 * 6 * 24**2, 150 * 16 * 8**2
    linear = 256 * 120 + 120 * 84 + 84 * 10
    one = 2 * (2 * first + 3 * (second + linear))
    experiment = small(tmp_path, model="lenet", rounds=1, training={"epochs": 2, "batch_size": 7})
    dataset = images(28, classes=10)
    blueprint = make_blueprint(experiment, dataset.spec, torch.device("cpu"))
    assert training_flops(blueprint.model, dataset.spec) == one
    run(experiment, dataset=dataset)
    clients = table(tmp_path, "clients")
    assert clients["flops"].tolist() == (one * 2 * clients["samples"]).tolist()
    assert clients["steps"].tolist() == (2 * np.ceil(clients["samples"] / 7)).tolist()


def test_counting_flops_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    experiment = small(tmp_path, model={"name": "resnet20", "options": {"width": 4}})
    model = make_blueprint(experiment, SampleSpec((1, 8, 8), 10), torch.device("cpu")).model
    before = model.read()
    training_flops(model, SampleSpec((1, 8, 8), 10))
    after = model.read()
    assert after.parameters.tobytes() == before.parameters.tobytes()
    assert after.buffers.tobytes() == before.buffers.tobytes()
    assert not model.module.training


def test_the_run_describes_itself(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"partition": {"name": "classes", "k": 2}, "seed": 5}
    dataset = images(8, name="my noise")
    experiment = with_memory(small(tmp_path, "fedper", **fields), dataset)
    run(experiment, dataset=dataset)
    (row,) = table(tmp_path, "runs").to_dict("records")
    expected = {
        "name": "experiment",
        "algorithm": "fedper",
        "dataset": "my noise",
        "partition": "classes(k=2)",
        "model": "mlp",
        "seed": 5,
        "clients": 6,
        "sample_ratio": 1.0,
        "rounds": 3,
        "shared_parameters": 64 * 16 + 16,
        "local_parameters": 16 * 4 + 4,
        "config_hash": experiment.config_hash,
        "status": "finished",
    }
    assert {name: row[name] for name in expected} == expected
    assert type(experiment).model_validate_json(row["config"]) == experiment
    assert {"python", "torch", "spatl_ray"} <= json.loads(row["versions"]).keys()
    assert len(json.loads(row["hardware"])) == 1


def outcome() -> RoundOutcome:
    """Four clients: one accepted, one clipped, one rejected with an infinite loss, one failed."""
    layer = LayerReport("conv", 8, 2, None, 20, 80)
    fields: dict[str, Any] = {"samples": 10, "steps": 2, "actor": "a"}
    return RoundOutcome(
        (
            ClientReport(0, "accepted", train_loss=1.0, density=0.5, bytes_up=10, **fields),
            ClientReport(1, "clipped", "large", train_loss=3.0, density=1.0, bytes_up=30, **fields),
            ClientReport(2, "rejected", "NaN", train_loss=math.inf, bytes_up=5, **fields),
            ClientReport(4, "failed", "broke", actor="a", layers=(layer,)),
        ),
        1.5,
        0.5,
    )


def test_a_round_counts_and_adds_up() -> None:
    ledger = rows.Ledger(bytes_up=100)
    row = rows.round_row(7, 0.1, outcome(), None, ledger, 3.0)
    names = ("participants", "accepted", "clipped", "rejected", "failed")
    assert [row[name] for name in names] == [4, 1, 1, 1, 1]
    assert (row["bytes_up"], row["bytes_up_cumulative"], ledger.bytes_up) == (45, 145, 145)
    assert (row["train_loss"], row["density"]) == (2.0, 0.75)
    assert (row["global_test_accuracy"], row["untrained_clients"]) == (None, None)


def test_events_are_what_was_not_accepted() -> None:
    now = datetime.now(UTC)
    events = rows.event_rows(7, outcome(), now)
    assert [(e["client"], e["kind"], e["message"]) for e in events] == [
        (1, "update clipped", "large"),
        (2, "update rejected", "NaN"),
        (4, "client failed", "broke"),
    ]
    assert {(e["round"], e["time"]) for e in events} == {(7, now)}


def test_what_is_not_known_is_null() -> None:
    found = {row["client"]: row for row in rows.client_rows(7, outcome(), None, 1.0)}
    assert [found[client]["samples"] for client in (0, 1, 2, 4)] == [10, 10, 10, None]
    assert found[2]["train_loss"] is None
    assert all(row["evaluated_as"] is None for row in found.values())
    (layer,) = rows.layer_rows(7, outcome())
    assert (layer["client"], layer["keep_ratio"], layer["inference_keep_ratio"]) == (4, 0.25, None)


def test_drift_is_what_the_model_moved_over_what_clients_did(tmp_path: Path) -> None:
    """With one round of FedAvg the server moves by sum_i p_i d_i."""
    _, backend = ran(small(tmp_path, "fedavg", rounds=1, partition={"name": "quantity", "beta": 1}))
    aggregator_ = backend.aggregator
    start = aggregator_.algorithm.start_server(aggregator_.blueprint.initial)
    moved = aggregator_.server[MODEL].astype(np.float64) - start[MODEL]
    clients = table(tmp_path, "clients")
    lengths = (clients["samples"] / clients["samples"].sum() * clients["update_norm"]).sum()
    (row,) = table(tmp_path, "rounds").to_dict("records")
    assert 0 < row["update_cosine_mean"] < 1
    assert row["update_cosine_mean"] == pytest.approx(np.linalg.norm(moved) / lengths, rel=1e-4)
    assert math.isnan(row["control_norm"])
    assert clients["control_norm"].isna().all()


def test_norms_of_control_variates_are_those_of_server_and_clients(tmp_path: Path) -> None:
    _, backend = ran(small(tmp_path, "scaffold", rounds=2))
    rounds, clients = table(tmp_path, "rounds"), table(tmp_path, "clients")
    server = np.linalg.norm(backend.aggregator.server[CONTROL].astype(np.float64))
    assert rounds["control_norm"].iloc[-1] == pytest.approx(server, rel=1e-12)
    assert (clients.loc[clients["round"] == 0, "control_norm"] == 0).all()
    assert (clients.loc[clients["round"] == 1, "control_norm"] > 0).all()


def test_the_run_tells_who_holds_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "HOLDERS", 4)
    _, backend = ran(small(tmp_path, "local_only", rounds=1, partition={"name": "classes", "k": 3}))
    (row,) = table(tmp_path, "runs").to_dict("records")
    held = np.array(json.loads(row["holdings"]))
    assert held.shape == (4, 10)
    assert ((held > 0).sum(axis=1) == 3).all()
    data = backend.worker.population.data
    sizes = sum(data.sizes(split) for split in ("train", "validation", "test"))
    assert held.sum(axis=1).tolist() == sizes[:4].tolist()
