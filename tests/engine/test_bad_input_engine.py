"""What cannot run is refused before anything starts, and leaves nothing behind.

Faults that the config alone shows are in tests/test_bad_input.py.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import serial, small

from spatl_ray import run
from spatl_ray.config import Engine
from spatl_ray.engine.capacity import Shares, count_workers
from spatl_ray.errors import (
    ConfigError,
    DataError,
    EngineError,
    ModelError,
    ResultsError,
    SpatlError,
)
from spatl_ray.experiments import experiment_from

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def refused(folder: Path, kind: type[SpatlError], algorithm: Any = "fedavg", **fields: Any) -> str:
    """The error's text; the results folder holds nothing afterwards, hidden files included."""
    with pytest.raises(kind) as caught:
        run(small(folder / "results", algorithm, **fields))
    assert list((folder / "results").rglob("*")) == []
    return str(caught.value)


def test_more_classes_a_client_than_there_are(tmp_path: Path) -> None:
    text = refused(tmp_path, ConfigError, partition={"name": "classes", "k": 11})
    assert text == "partition.k must be at most 10, the number of classes, got 11"


def test_a_dirichlet_partition_that_never_succeeds(tmp_path: Path) -> None:
    partition = {"name": "dirichlet", "beta": 0.05, "min_size": 10}
    text = refused(tmp_path, DataError, partition=partition, clients=100)
    assert text.startswith(
        "partition dirichlet: none of 1000 redraws with beta=0.05 over clients=100 gave each client "
        "min_size=10 of 1438 samples: "
    )


def test_more_clients_than_samples(tmp_path: Path) -> None:
    text = refused(tmp_path, ConfigError, clients=1439)
    assert text == "clients must be at most 1438, the number of training samples, got 1439"
    text = refused(tmp_path, ConfigError, clients=51, data={"samples": 50})
    assert text == "clients must be at most 50, the number of training samples, got 51"


def test_data_that_is_missing(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    text = refused(tmp_path, DataError, data={"name": "fashion_mnist", "root": str(root)})
    assert text.startswith("fashion_mnist needs its four IDX files")
    assert f"{root}: no such folder" in text
    assert "get them with" in text


@pytest.mark.parametrize(
    ("algorithm", "devices", "text"),
    [
        (
            {"agent": {}},
            {"budget_flops": {"name": "between", "low": 0.005, "high": 0.006}},
            r"devices\.budget_flops must be at least 0\.0455 of the dense network's, which every layer at "
            r"its least keep ratio costs, got 0\.005\d+ for client \d",
        ),
        (
            {"inference": {"keep": 0.5}},
            {"budget_flops": 0.04},
            r"devices\.budget_flops must be at least 0\.0455 .* got 0\.04 for client 0",
        ),
        (
            {"agent": {"budget": 0.04}},
            None,
            r"algorithm\.agent\.budget must be at least 0\.0455, .* got 0\.04",
        ),
        (
            {"inference": {"flops": 0.04}},
            None,
            r"algorithm\.inference\.flops must be at least 0\.0455, .* got 0\.04",
        ),
    ],
)
def test_a_budget_below_the_floor_of_all_layers(
    tmp_path: Path, algorithm: dict[str, Any], devices: Any, text: str
) -> None:
    algorithm = {"name": "spatl", **algorithm}
    model = {"name": "resnet20", "options": {"width": 4}}
    found = refused(tmp_path, ConfigError, algorithm, devices=devices, model=model)
    assert re.fullmatch(text, found)


def test_compilation_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    text = refused(tmp_path, ConfigError, training={"compile": True})
    assert text == (
        "training.compile must be false without a C++ compiler (g++, clang++, c++, or CXX), got true"
    )


def test_a_data_set_that_does_not_exist(tmp_path: Path) -> None:
    text = refused(tmp_path, ConfigError, data={"name": "digit"})
    assert text.endswith("got 'digit'; did you mean 'digits'?")


def test_a_model_without_a_predictor(tmp_path: Path) -> None:
    text = refused(tmp_path, ModelError, model="small_runs:Headless")
    assert text.startswith("model small_runs:Headless has no predictor: name its submodules in ")
    assert text.endswith("it has body")


def test_a_predictor_that_the_model_does_not_have(tmp_path: Path) -> None:
    text = refused(tmp_path, ModelError, model={"name": "mlp", "predictor": ["head"]})
    expected = "model.predictor must name submodules of mlp, got 'head'; it has encoder, predictor"
    assert text == expected


def test_a_model_that_does_not_fit_the_data(tmp_path: Path) -> None:
    text = refused(tmp_path, ModelError, model="lenet")
    assert text.startswith("lenet needs images of at least ")
    assert text.endswith("got (1, 8, 8)")


@no_gpu
def test_a_share_of_a_gpu_without_one(tmp_path: Path) -> None:
    text = refused(tmp_path, ConfigError, engine={"backend": "serial", "num_gpus": 0.25})
    assert text == "engine.num_gpus needs a GPU that torch can use, got 0.25 without one"


@no_gpu
@pytest.mark.parametrize("num_gpus", [0.0, 1.0])
def test_cuda_without_a_gpu(tmp_path: Path, num_gpus: float) -> None:
    engine = {"backend": "serial", "device": "cuda", "num_gpus": num_gpus}
    text = refused(tmp_path, ConfigError, engine=engine)
    assert text == "engine.device needs a GPU that torch can use, got cuda without one"


def test_an_own_algorithm_that_does_not_exist(tmp_path: Path) -> None:
    text = refused(tmp_path, ConfigError, "sketches:Nobody")
    assert text.startswith("algorithm.name must name something that can be imported as ")
    assert "got 'sketches:Nobody'" in text


def test_what_is_no_algorithm(tmp_path: Path) -> None:
    text = refused(tmp_path, ConfigError, "collections:OrderedDict")
    assert text.endswith("got 'collections:OrderedDict': a OrderedDict")


def test_a_layer_that_the_encoder_does_not_have(tmp_path: Path) -> None:
    algorithm = {"name": "spatl", "keep_layers": {"conv9": 0.5}}
    text = refused(tmp_path, ConfigError, algorithm)
    assert "algorithm.keep_layers must name prunable encoder layers (encoder.1)" in text
    assert "'conv9'" in text


def test_selection_without_a_layer_to_select_from(tmp_path: Path) -> None:
    model = {"name": "mlp", "options": {"hidden": []}}
    text = refused(tmp_path, ConfigError, {"name": "spatl", "transfer": False}, model=model)
    assert text.startswith("algorithm.selection must be false for an encoder without ")


def test_workers_that_would_give_different_bits(tmp_path: Path) -> None:
    """A backend that reports two kinds of machine is refused before the first round."""
    experiment = small(tmp_path / "results")
    backend = serial(experiment)
    (one,) = backend.start()
    two = [one, replace(one, fingerprint="arm64")]
    backend.start = lambda again=False: two  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="workers must share one CPU capability"):
        run(experiment, backend=backend)
    assert list((tmp_path / "results").rglob("*")) == []
    allowed = small(tmp_path / "results", engine={"backend": "serial", "allow_mixed": True})
    assert run(allowed, backend=backend).status == "finished"


def test_error_feedback_with_the_median(tmp_path: Path) -> None:
    """The median has no denominator: it would deliver several rounds' residual at full weight."""
    algorithm = {
        "name": "spatl",
        "error_feedback": True,
        "denominator": "cohort",
        "control": {"variate": "sent"},
    }
    with pytest.raises(ConfigError, match=r"aggregation\.rule must be mean with error_feedback"):
        run(small(tmp_path / "results", algorithm, aggregation={"rule": "median"}))


def test_spatl_with_nothing_to_share(tmp_path: Path) -> None:
    """Without an encoder there is no parameter left to send, select or control."""
    model = {"name": "mlp", "options": {"hidden": []}}
    algorithm = {"name": "spatl", "selection": False}
    assert "encoder" in refused(tmp_path, ConfigError, algorithm, model=model)


def test_an_unwritable_folder_is_refused_before_work() -> None:
    """Permission bits do not bind root; /proc takes no folders from anybody."""
    with pytest.raises(ResultsError, match="/proc/results"):
        run(small(Path("/proc/results")))


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        (Engine(num_gpus=0.5), r"engine\.num_gpus must be 0 .* without a GPU, got 0\.5"),
        (Engine(actors_per_gpu=2), r"engine\.actors_per_gpu must be null .* without a GPU, got 2"),
        (Engine(actors_per_gpu="auto"), r"actors_per_gpu must be null .* without a GPU, got auto"),
    ],
)
def test_gpus_on_a_cluster_without_one(engine: Engine, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        count_workers(Shares(engine, {}), [{"CPU": 4.0}])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"actors_per_gpu": 2, "num_gpus": 0.5}, "num_gpus must be 0 with actors_per_gpu=2"),
        (
            {"actors_per_gpu": "auto", "num_gpus": 1.0},
            "num_gpus must be 0 with actors_per_gpu=auto",
        ),
        ({"actors_per_gpu": "auto", "backend": "serial"}, "must not be auto with backend serial"),
        (
            {"actors_per_gpu": "auto", "wait_for_workers": 9.0},
            "wait_for_workers must be 0 with actors_per_gpu=auto, .* got 9",
        ),
        ({"num_gpus": 1.5}, "num_gpus must be a whole number above 1, got 1.5"),
        ({"num_gpus": 1e-5}, "num_gpus must be 0, or 0.0001 or more, got 1e-05"),
        ({"num_cpus": 1e-5}, "num_cpus must be 0, or 0.0001 or more, got 1e-05"),
        ({"actors_per_gpu": 0}, "actors_per_gpu"),
        ({"actors_per_gpu": "many"}, "actors_per_gpu"),
        ({"wait_for_workers": -1.0}, "wait_for_workers"),
    ],
)
def test_gpus_are_shared_one_way(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        experiment_from({"engine": fields})


def test_more_workers_than_the_cluster_holds() -> None:
    three, two = Shares(Engine(workers=3), {}), [{"CPU": 2.0}]
    with pytest.raises(ConfigError, match=r"engine\.workers must fit the cluster \(2 CPU\).*got 3"):
        count_workers(three, two)
    assert count_workers(three, two, fewer=True) == 2
    with pytest.raises(ConfigError, match=r"engine\.workers must fit the cluster \(0 CPU\)"):
        count_workers(three, [], fewer=True)


def test_all_faults_of_data_and_model_at_once(tmp_path: Path) -> None:
    experiment = small(
        tmp_path, "nowhere:Algorithm", data={"name": "cifar"}, model={"name": "lenett"}
    )
    with pytest.raises(ConfigError) as caught:
        run(experiment)
    text = str(caught.value)
    assert len(caught.value.faults) == 3
    assert "data.name" in text
    assert "did you mean 'lenet'" in text
    assert "algorithm.name" in text
