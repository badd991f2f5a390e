"""Files, presets and overrides become the experiment they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.config import Experiment, FedAvg, FedProx, SignFlip, Spatl
from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from, load_experiment, presets


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(text: str) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


SPATL_FILE = """
algorithm: {name: spatl, keep: 0.25, server_lr: 0.5}
partition: {name: dirichlet, beta: 0.3}
model: {name: resnet20, options: {width: 8}, predictor: [head]}
"""


def test_every_preset_is_a_valid_experiment_of_its_name() -> None:
    assert set(presets()) == {
        "cifar10_resnet20",
        "cifar10_vgg11",
        "demo",
        "fashion_lenet",
        "fashion_resnet20",
        "fashion_vgg11",
        "femnist_cnn",
        "reference_fashion",
        "shakespeare_lstm",
        "stragglers",
    }
    for name, description in presets().items():
        assert load_experiment(name).name == name
        assert len(description) > 20


def test_the_reference_preset_is_the_published_setting() -> None:
    """Li, Diao, Chen, He (ICDE 2022): 10 clients, all sampled, 50 rounds of 10 epochs."""
    reference = load_experiment("reference_fashion")
    split, training = reference.data.split, reference.training
    assert (reference.clients, reference.cohort_size, reference.rounds) == (10, 10, 50)
    assert (split.train, split.validation, split.test) == (1, 0, 0)
    assert (training.epochs, training.batch_size, training.lr) == (10, 64, 0.01)
    assert (training.momentum, training.weight_decay) == (0.9, 1e-5)
    assert reference.data.samples is None
    assert reference.evaluation.global_samples is None


def test_yaml_numbers_and_lists_fit_strict_fields(write: Any) -> None:
    text = "training: {lr: 1, weight_decay: 1e-5, decay: 0.5}\nmodel: {predictor: [a, b.c]}\n"
    experiment = load_experiment(write(text))
    assert (experiment.training.lr, experiment.training.weight_decay) == (1.0, 1e-5)
    assert isinstance(experiment.training.lr, float)
    assert experiment.model.predictor == ("a", "b.c")


def test_a_name_stands_for_its_section(write: Any) -> None:
    experiment = load_experiment(write("algorithm: fedavg\nmodel: lenet\npartition: iid\n"))
    assert experiment.algorithm == FedAvg()
    assert (experiment.model.name, experiment.partition.name) == ("lenet", "iid")


def test_a_section_without_a_name_is_of_the_default_kind() -> None:
    experiment = experiment_from({"algorithm": {"keep": 0.1}, "partition": {"beta": 2}})
    assert experiment.algorithm == Spatl(keep=0.1)
    assert (experiment.partition.name, experiment.partition.model_dump()["beta"]) == (
        "dirichlet",
        2.0,
    )


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        (["rounds=3"], "rounds", 3),
        (["training.lr=1e-3"], "training.lr", 1e-3),
        (["training.lr=1", "training.lr=2"], "training.lr", 2.0),
        (["data.split={train: 1, validation: 0, test: 0}"], "data.split.train", 1.0),
        (["data.samples=null"], "data.samples", None),
        (["algorithm.control.rate=0.5"], "algorithm.control.rate", 0.5),
        (
            ["algorithm.keep_layers.stage1.0.conv=0.3"],
            "algorithm.keep_layers",
            {"stage1.0.conv": 0.3},
        ),
        (["model.options.width=2"], "model.options", {"width": 2}),
        (["results.folder=a=b"], "results.folder", "a=b"),
        (["name=run-1"], "name", "run-1"),
        (["attack=sign_flip", "attack.scale=3"], "attack", SignFlip(scale=3.0)),
    ],
)
def test_an_override_sets_its_field(overrides: list[str], path: str, value: Any) -> None:
    found: Any = load_experiment("demo", overrides)
    for step in path.split("."):
        found = getattr(found, step)
    assert found == value


def test_another_name_drops_what_the_file_said_for_the_old_one(write: Any) -> None:
    path = write(SPATL_FILE)
    experiment = load_experiment(path, ["algorithm=fedavg", "partition=iid", "model=lenet"])
    assert experiment.algorithm == FedAvg(server_lr=0.5), "server_lr is a field of both"
    assert experiment.partition.model_dump() == {"name": "iid"}
    assert (experiment.model.options, experiment.model.predictor) == ({}, None)


def test_another_partition_has_its_own_min_size(write: Any) -> None:
    """The old one's would leave out owners with fewer samples."""
    path = write("partition: {name: quantity, beta: 0.3, min_size: 20}\n")
    for name, own in (("writers", 1), ("dirichlet", 10)):
        expected = experiment_from({"partition": {"name": name}}).partition.model_dump()
        assert expected["min_size"] == own
        found = load_experiment(path, [f"partition={name}"]).partition.model_dump()
        assert found == expected | ({"beta": 0.3} if "beta" in expected else {})
    assert load_experiment(path, ["partition=quantity"]) == load_experiment(path)


@pytest.mark.parametrize("order", [1, -1])
def test_an_override_of_min_size_wins_over_another_partition(order: int) -> None:
    overrides = ["partition=writers", "partition.min_size=7"][::order]
    partition = load_experiment("demo", overrides).partition
    assert partition.model_dump() == {"name": "writers", "min_size": 7}


def test_the_same_name_drops_nothing(write: Any) -> None:
    path = write(SPATL_FILE)
    assert load_experiment(path, ["algorithm=spatl", "model=resnet20"]) == load_experiment(path)


@pytest.mark.parametrize("order", [1, -1])
def test_overrides_for_the_new_name_stay(order: int) -> None:
    overrides = ["algorithm=fedprox", "algorithm.mu=0.5"][::order]
    assert load_experiment("demo", overrides).algorithm == FedProx(mu=0.5)


def test_overrides_for_the_new_name_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.keep is no field of fedavg"):
        load_experiment("demo", ["algorithm=fedavg", "algorithm.keep=0.3"])


@given(
    st.fixed_dictionaries(
        {
            "rounds": st.integers(1, 10**6),
            "sample_ratio": st.floats(0.1, 1),
            "training.lr": st.floats(1e-9, 1e3),
            "algorithm.keep": st.floats(1e-3, 1),
            "algorithm": st.just("spatl"),
        }
    )
)
def test_overrides_mean_what_a_file_would(values: dict[str, Any]) -> None:
    overrides = [f"{key}={value}" for key, value in values.items()]
    experiment = load_experiment("demo", overrides)
    assert experiment.rounds == values["rounds"]
    assert experiment.sample_ratio == values["sample_ratio"]
    assert experiment.training.lr == values["training.lr"]
    assert isinstance(experiment.algorithm, Spatl)
    assert experiment.algorithm.keep == values["algorithm.keep"]


@pytest.mark.parametrize("preset", sorted(presets()))
def test_a_written_experiment_reads_back_as_itself(preset: str, write: Any) -> None:
    experiment = load_experiment(preset, ["model.predictor=[a, b]"])
    text = yaml.safe_dump(experiment.model_dump(mode="json"))
    again = load_experiment(write(text))
    assert again == experiment
    assert again.run_id == experiment.run_id


TRACES: dict[str, Any] = {
    "devices.trace": lambda path: {"devices": {"trace": path}},
    "availability.file": lambda path: {"availability": {"name": "trace", "file": path}},
}


@pytest.mark.parametrize("field", TRACES)
def test_of_a_trace_the_contents_count(tmp_path: Path, field: str) -> None:
    """Who was how fast, and who was there, decide the numbers; where the file lies does not."""
    first, same, other = (tmp_path / name for name in ("a.csv", "b.csv", "c.csv"))
    for path, text in ((first, "x\n1\n"), (same, "x\n1\n"), (other, "x\n2\n")):
        path.write_text(text)
    ids = [experiment_from(TRACES[field](str(path))).run_id for path in (first, same, other)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] != Experiment().run_id
    missing = experiment_from(TRACES[field](str(tmp_path / "none.csv")))
    with pytest.raises(ConfigError, match=rf"^{field} must be a readable file, got .*none\.csv'"):
        _ = missing.run_id


def test_an_experiment_with_a_trace_reads_back_as_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is written with the draws that the trace replaces."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.csv").write_text("not looked into\n")
    experiment = experiment_from({"devices": {"trace": "fleet.csv", "latency": 0.5}})
    again = experiment_from(experiment.model_dump(mode="json"))
    assert again == experiment
    assert again.run_id == experiment.run_id


def test_models_may_stand_for_sections() -> None:
    expected = Experiment(algorithm=FedProx(mu=1.0), rounds=3)
    assert experiment_from({"algorithm": FedProx(mu=1.0), "rounds": 3}) == expected
