"""Whole runs with the selection agent: what it takes, what it refuses, and what it reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_runs import small, table
from torch import Tensor, nn

from spatl_ray import run
from spatl_ray.errors import ConfigError, ModelError, SpatlError
from spatl_ray.selection.agent import load_agent

pytestmark = pytest.mark.integration

RESNET = {"name": "resnet20", "options": {"width": 4}}


class Pools(nn.Module):
    """An encoder with weights, but without a layer that could lose channels."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.BatchNorm2d(1), nn.AvgPool2d(2), nn.Flatten())
        self.predictor = nn.Linear(shape[0] * (shape[1] // 2) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.predictor(self.encoder(x))
        return logits


class Convolves(Pools):
    """A network whose forward pass depends on values."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__(shape, classes)
        self.encoder = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), *self.encoder)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def spatl(agent: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "spatl", "agent": {"episodes": 2, **agent}, **fields}


def refused(folder: Path, kind: type[SpatlError], agent: dict[str, Any], **fields: Any) -> str:
    """The error's text; nothing was written."""
    with pytest.raises(kind) as caught:
        run(small(folder / "results", spatl(agent), **{"model": RESNET, **fields}))
    assert list((folder / "results").rglob("*")) == []
    return str(caught.value)


def test_a_model_that_cannot_be_traced(tmp_path: Path) -> None:
    text = refused(tmp_path, ModelError, {}, model=f"{__name__}:Convolves")
    assert "got its own forward pass (Convolves), which cannot be traced: TraceError" in text


def test_an_encoder_without_layers(tmp_path: Path) -> None:
    text = refused(tmp_path, ConfigError, {}, model=f"{__name__}:Pools")
    assert text.startswith(
        "algorithm.selection must be false for an encoder without convolution or "
    )


def test_a_budget_below_the_floor(tmp_path: Path) -> None:
    text = refused(tmp_path, ConfigError, {"budget": 0.001})
    assert text.startswith("algorithm.agent.budget must be at least 0.0")
    assert text.endswith("got 0.001")


@pytest.mark.parametrize("what", ["cut", "older"])
def test_weights_that_cannot_be_used(tmp_path: Path, what: str) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(dict(load_agent("shipped").state_dict()), path, {"format": "spatl_ray agent 0.0"})
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    text = refused(tmp_path, ConfigError, {"weights": str(path)})
    assert text.startswith("algorithm.agent.weights must be ")
    assert str(path) in text


def test_no_validation_split(tmp_path: Path) -> None:
    split = {"split": {"train": 0.8, "validation": 0.0, "test": 0.2}}
    with pytest.raises(ConfigError, match=r"data\.split\.validation must be above 0 with algo"):
        run(small(tmp_path, spatl({}), model=RESNET, data=split))
    algorithm = spatl({"participations": 0, "budget": 0.5})
    run(small(tmp_path, algorithm, model=RESNET, data=split, rounds=1, clients=2))
    clients = table(tmp_path, "clients")
    assert (clients["status"] == "accepted").all()
    assert clients["selection_reward"].isna().all()
    assert (clients["inference_flops_share"] <= 0.5).all()


def test_a_client_without_validation_samples(tmp_path: Path) -> None:
    """The pre-trained agent decides for it; the others are tuned."""
    split = {"samples": 200, "split": {"train": 0.82, "validation": 0.03, "test": 0.15}}
    partition = {"name": "dirichlet", "beta": 0.2, "min_size": 2}
    run(
        small(
            tmp_path,
            spatl({"participations": 1}),
            model=RESNET,
            data=split,
            partition=partition,
            rounds=1,
            clients=8,
        )
    )
    clients = table(tmp_path, "clients")
    has_none = clients["selection_reward"].isna()
    assert has_none.any()
    assert not has_none.all()
    assert (clients["status"] == "accepted").all()
    assert (clients["selection_evaluations"][has_none] == 0).all()


def test_an_encoder_of_linear_layers(tmp_path: Path) -> None:
    model = {"name": "mlp", "options": {"hidden": [32, 16]}}
    run(small(tmp_path, spatl({"budget": 0.5}), model=model, rounds=2, clients=2))
    clients = table(tmp_path, "clients")
    assert (clients["status"] == "accepted").all()
    assert (clients["inference_flops_share"] <= 0.5).all()
    assert set(table(tmp_path, "layers")["layer"]) == {"encoder.1", "encoder.3"}


def test_the_smaller_model_is_scored_with_its_own_statistics(tmp_path: Path) -> None:
    """With those of the whole network it would predict near chance."""
    fields: dict[str, Any] = {
        "model": {"name": "resnet20", "options": {"width": 8}},
        "data": {"samples": 1200},
        "clients": 2,
        "rounds": 4,
        "training": {"lr": 0.1, "epochs": 3},
    }
    run(small(tmp_path, spatl({"budget": 0.7, "episodes": 4}), **fields))
    last = table(tmp_path, "clients").query("round == 3")
    whole, kept = last["after_local_test_accuracy"], last["inference_local_test_accuracy"]
    assert torch.tensor(kept.to_numpy()).min() > 0.5
    assert np.abs(whole - kept).max() < 0.35
