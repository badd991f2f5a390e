"""Everything that can be named runs end to end: two rounds on small files in the true formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import data_files
import pytest
from small_runs import small, table

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import BUILT_IN
from spatl_ray.data.partition import PARTITIONERS
from spatl_ray.federation.availability import KINDS
from spatl_ray.federation.samplers import SAMPLERS
from spatl_ray.fields import kinds
from spatl_ray.models.split import MODELS

pytestmark = pytest.mark.integration

Fields = Mapping[str, Any]

SPLIT = {"train": 0.5, "validation": 0.25, "test": 0.25}
LENET = {"model": "lenet"}
SIDE8 = {"model": {"name": "resnet20", "options": {"width": 2}}}


def nothing(folder: Path) -> None:
    """No file is needed."""


DATA: Mapping[str, tuple[Callable[[Path], Path | None], Fields]] = {
    "digits": (nothing, SIDE8),
    "mnist": (data_files.write_idx, LENET),
    "fashion_mnist": (data_files.write_idx, LENET),
    "emnist": (lambda folder: data_files.write_emnist(folder, "balanced", 47), LENET),
    "cifar10": (data_files.write_cifar10, LENET),
    "cifar100": (data_files.write_cifar100, LENET),
    "svhn": (data_files.write_svhn, LENET),
    "femnist": (data_files.write_leaf_femnist, {"model": {"name": "cnn", "options": {"width": 4}}}),
    "shakespeare": (
        data_files.write_leaf_shakespeare,
        {"model": {"name": "char_lstm", "options": {"hidden": 8}}},
    ),
    "fcube": (nothing, {"partition": "fcube", "clients": 4}),
    "synthetic_images": (nothing, {"model": {"name": "cnn", "options": {"width": 4}}}),
    "images": (data_files.write_image_folder, {}),
    "parquet": (lambda folder: data_files.write_parquet(folder / "some.parquet"), {}),
}
PARTITIONS: Mapping[str, Fields] = {
    "iid": {},
    "dirichlet": {"partition": {"min_size": 2}},
    "classes": {},
    "quantity": {"partition": {"min_size": 4}},
    "mixed": {"partition": {"beta": 5.0}},
    "shards": {},
    "feature_noise": {},
    "fcube": {"data": "fcube", "clients": 4},
    "writers": {"data": "femnist", "model": {"name": "cnn", "options": {"width": 4}}},
}
MODEL_FIELDS: Mapping[str, Fields] = {
    "mlp": {},
    "lenet": {"data": {"name": "synthetic_images", "options": {"samples": 60}}},
    "cnn": {"model": {"options": {"width": 4, "hidden": 16}}},
    "resnet20": {"model": {"options": {"width": 2}}},
    "resnet32": {"model": {"options": {"width": 2, "norm": "group"}}},
    "resnet56": {"model": {"options": {"width": 1, "norm": "none"}}},
    "vgg11": {"model": {"options": {"width": 4, "norm": "batch"}}},
    "vgg13": {"model": {"options": {"width": 2}}},
    "vgg16": {"model": {"options": {"width": 2}}},
    "char_lstm": {"data": "shakespeare", "model": {"options": {"hidden": 8}}},
}
SAMPLER_FIELDS: Mapping[str, Fields] = {
    "uniform": {},
    "samples": {},
    "round_robin": {},
    "power_of_choice": {"sampler": {"candidates": 4}},
}
AVAILABILITY: Mapping[str, Fields] = {
    "always": {},
    "random": {"availability": {"p": 0.8}},
    "periodic": {"availability": {"period": 2}},
    "trace": {},
    "newcomers": {"availability": {"share": 0.25}},
}


def tried(folder: Path, section: str, name: str, fields: Fields) -> Experiment:
    """Two rounds of SPATL with everything small; `section` is of kind `name`."""
    merged: dict[str, Any] = {"clients": 4, "rounds": 2, **fields}
    given = merged.get(section, {})
    merged[section] = {"name": name, **(given if isinstance(given, Mapping) else {})}
    if isinstance(merged.get("data"), str):
        merged["data"] = {"name": merged["data"]}
    if "data" in merged and "root" not in merged["data"]:
        root = DATA[merged["data"]["name"]][0](folder / "files")
        merged["data"]["root"] = None if root is None else str(root)
    experiment = small(folder / "results", "spatl", **merged)
    summary = run(experiment)
    assert summary.status == "finished"
    return experiment


def check(experiment: Experiment, accepted: int = 8) -> None:
    """Every client trained and was evaluated."""
    rounds = table(Path(experiment.results.folder), "rounds")
    assert rounds["accepted"].sum() == accepted
    assert rounds[["train_loss", "local_test_accuracy_mean"]].notna().all(axis=None)
    assert (rounds["bytes_up"] > 0).all()


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_data_set_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / "files").mkdir()
    root = DATA[name][0](tmp_path / "files")
    data = {"root": None if root is None else str(root), "split": SPLIT}
    check(tried(tmp_path, "data", name, {"data": data, **DATA[name][1]}))


@pytest.mark.parametrize("name", PARTITIONERS)
def test_a_partition_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / "files").mkdir()
    check(tried(tmp_path, "partition", name, PARTITIONS[name]))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / "files").mkdir()
    check(tried(tmp_path, "model", name, MODEL_FIELDS[name]))


def test_a_torchvision_model_runs(tmp_path: Path) -> None:
    options = {"shape": [3, 32, 32], "samples": 40, "test_samples": 10}
    data = {"name": "synthetic_images", "options": options}
    check(tried(tmp_path, "model", "torchvision.squeezenet1_1", {"data": data}))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_runs(tmp_path: Path, name: str) -> None:
    fields = {"sample_ratio": 0.5, **SAMPLER_FIELDS[name]}
    check(tried(tmp_path, "sampler", name, fields), accepted=4)


@pytest.mark.parametrize("name", KINDS)
def test_an_availability_runs(tmp_path: Path, name: str) -> None:
    fields = {"sample_ratio": 0.5, **AVAILABILITY[name]}
    if name == "trace":
        trace = tmp_path / "there.csv"
        trace.write_text("client,first_round,last_round\n0,0,1\n2,0,1\n")
        fields["availability"] = {"file": str(trace)}
    tried(tmp_path, "availability", name, fields)


@pytest.mark.parametrize(
    ("section", "tables"),
    [
        ("partition", (PARTITIONERS, PARTITIONS)),
        ("sampler", (SAMPLERS, SAMPLER_FIELDS)),
        ("availability", (KINDS, AVAILABILITY)),
    ],
)
def test_every_kind_of_the_config_is_tried(
    section: str, tables: tuple[Mapping[str, Any], Fields]
) -> None:
    of_config = kinds(Experiment.model_fields[section]).keys() - {"own"}
    for known in tables:
        assert of_config == known.keys() - {"own"}
