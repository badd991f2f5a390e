"""Each fault names field, value and rule, and the word that was probably meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.config import BUILT_IN, Experiment, Spatl
from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from
from spatl_ray.fields import tree


def faults(mapping: dict[Any, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        experiment_from(mapping)
    return caught.value.faults


def nested(depth: int) -> Any:
    """Lists in each other."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_options_that_hold_themselves_are_refused() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    rule = "data.options must not hold itself or be nested over 100 deep, got a"
    for value in (circle, loop, nested(100), nested(5000)):
        assert faults({"data": {"name": "digits", "options": {"a": value}}}) == (rule,)


def test_options_as_deep_as_can_be_are_recorded() -> None:
    experiment = experiment_from({"data": {"name": "digits", "options": {"a": nested(99)}}})
    assert experiment_from(experiment.model_dump(mode="json")).run_id == experiment.run_id
    assert experiment.model_dump_json().count("[" * 99) == 1


def test_what_is_too_deep_to_be_shown_is_refused_in_words() -> None:
    assert faults({"name": nested(5000)}) == ("name must be text, got a list nested very deeply",)


def spatl(**fields: Any) -> dict[str, Any]:
    return {"algorithm": {"name": "spatl", **fields}}


@pytest.mark.parametrize(
    ("mapping", "fault"),
    [
        ({"sample_ratio": 1.5}, "sample_ratio must be in (0, 1], got 1.5"),
        ({"training": {"momentum": 1}}, "training.momentum must be in [0, 1), got 1"),
        ({"seed": 2**32}, "seed must be in [0, 4294967296), got 4294967296"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"training": {"lr": 0}}, "training.lr must be greater than 0, got 0"),
        (
            {"training": {"lr": float("inf")}},
            "training.lr must be finite and greater than 0, got inf",
        ),
        ({"data": {"samples": 0}}, "data.samples must be at least 1, got 0"),
        (
            {"algorithm": {"name": "spatl", "keep_layers": {"layer1.0": 2}}},
            "algorithm.keep_layers.layer1.0 must be in (0, 1], got 2",
        ),
    ],
)
def test_bounds_are_shown_from_both_sides(mapping: dict[str, Any], fault: str) -> None:
    assert faults(mapping) == (fault,)


@pytest.mark.parametrize(
    ("mapping", "fault"),
    [
        ({"rounds": "x"}, "rounds must be an integer, got 'x'"),
        ({"rounds": "5"}, "rounds must be an integer, got '5'; write it without quotes"),
        ({"rounds": 1.5}, "rounds must be an integer, got 1.5"),
        ({"rounds": True}, "rounds must be an integer, got True"),
        (
            {"training": {"lr": "0.1"}},
            "training.lr must be a number, got '0.1'; write it without quotes",
        ),
        ({"training": 3}, "training must be a mapping, got 3"),
        ({"partition": 3}, "partition must be a name or a mapping, got 3"),
        ({"algorithm": None}, "algorithm must be a name or a mapping, got None"),
        ({"model": {"predictor": ["a", 1]}}, "model.predictor.1 must be text, got 1"),
        ({"model": {"predictor": "a"}}, "model.predictor must be a list, got 'a'"),
        ({"results": {"overwrite": 1}}, "results.overwrite must be true or false, got 1"),
        ({"training": {1: 2}}, "keys of training must be text, got 1"),
        ({"data": {"options": {1: 2}}}, "keys of data.options must be text, got 1"),
        ({"name": "a b"}, r"name must match ^[\w.-]+$, got 'a b'"),
    ],
)
def test_types_are_named_in_plain_words(mapping: dict[Any, Any], fault: str) -> None:
    assert faults(mapping) == (fault,)


@pytest.mark.parametrize(
    ("mapping", "fault"),
    [
        (
            {"partition": {"name": "dir"}},
            "partition.name must be one of iid, dirichlet, classes, quantity, mixed, shards, "
            "feature_noise, fcube, writers, or an own one as package.module:Name, got 'dir'; "
            "did you mean 'dirichlet'?",
        ),
        (
            {"aggregation": {"rule": "medain"}},
            "aggregation.rule must be one of mean, median, trimmed_mean, krum, multi_krum, got 'medain'; "
            "did you mean 'median'?",
        ),
        (
            {"aggregation": {"rule": "best"}},
            "aggregation.rule must be one of mean, median, trimmed_mean, krum, multi_krum, got 'best'",
        ),
    ],
)
def test_choices_are_listed(mapping: dict[str, Any], fault: str) -> None:
    assert faults(mapping) == (fault,)


def test_an_algorithm_is_built_in_or_dotted() -> None:
    (fault,) = faults({"algorithm": {"name": "fedaveg"}})
    assert fault == (
        f"algorithm.name must be one of {', '.join(BUILT_IN)}, or an own one as "
        "package.module:Name, got 'fedaveg'; did you mean 'fedavg'?"
    )


@pytest.mark.parametrize(
    ("mapping", "fault"),
    [
        (spatl(kepe=1), "algorithm.kepe is no field of spatl; did you mean algorithm.keep?"),
        (
            spatl(control={"variat": "sent"}),
            "algorithm.control.variat is no field of algorithm.control; "
            "did you mean algorithm.control.variate?",
        ),
        (
            {"beta": 0.1},
            "beta is no field of an experiment; did you mean partition.beta?",
        ),
        (
            {"beta": 0.1, "partition": {"name": "iid"}},
            "beta is no field of an experiment; did you mean partition.beta (of dirichlet, mixed, quantity)?",
        ),
        (spatl(mu=1), "algorithm.mu is no field of spatl; it is a field of fedprox"),
        (
            {"algorithm": {"name": "a.b:C", "keep": 1}},
            "algorithm.keep is no field of an own algorithm; it is a field of spatl",
        ),
        (
            {"batch_size": 1},
            "batch_size is no field of an experiment; "
            "did you mean training.batch_size or evaluation.batch_size?",
        ),
        ({"training": {"zzzzz": 1}}, "training.zzzzz is no field of training"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(mapping: dict[str, Any], fault: str) -> None:
    assert faults(mapping) == (fault,)


def test_all_faults_are_shown_at_once() -> None:
    found = faults(
        {
            "rounds": "x",
            "sample_ratio": 0.01,
            "data": {"split": {"train": 0.5}},
            "training": {"epochs": 1, "steps": 2, "lr": -1},
            **spatl(keep=2, control={"strength": 0}),
        }
    )
    assert set(found) == {
        "rounds must be an integer, got 'x'",
        "data.split: train + validation + test must be 1, got 0.7",
        "training.lr must be greater than 0, got -1",
        "algorithm.keep must be in (0, 1], got 2",
        "algorithm.control.strength must be in (0, 1], got 0",
        "training: epochs and steps exclude each other: give one of them",
        "sample_ratio must sample at least one of 10 clients, got 0.01",
    }


def test_a_rule_is_not_held_against_a_default_that_stands_in() -> None:
    """With clients = 0 put back to 10, sample_ratio 0.01 would sample nobody: not the user's."""
    assert faults({"clients": 0, "sample_ratio": 0.01}) == ("clients must be at least 1, got 0",)


def test_a_rule_over_several_fields_carries_its_path() -> None:
    (fault,) = faults(spatl(control={"strength": 0.5}))
    assert fault.startswith("algorithm.control: strength must be 1 with variate=derived, got 0.5")


@given(
    st.floats().filter(lambda value: not 0 < value <= 1),
    st.sampled_from([("sample_ratio",), ("training", "decay"), ("algorithm", "keep")]),
)
def test_every_value_outside_is_refused_by_name(value: float, path: tuple[str, ...]) -> None:
    mapping: Any = value
    for step in reversed(path):
        mapping = {step: mapping}
    (fault,) = faults(mapping)
    assert fault == f"{'.'.join(path)} must be in (0, 1], got {value!r}"


@given(st.text(min_size=1, max_size=8), st.sampled_from(["", "training", "algorithm", "engine"]))
def test_every_unknown_key_is_refused_by_name(key: str, section: str) -> None:
    path = f"{section}.{key}" if section else key
    known = {each for each, _ in tree(Experiment, {})}
    if path in known:
        return
    (fault,) = faults({section: {key: 1}} if section else {key: 1})
    assert fault.startswith(f"{path} is no field of ")


def test_the_tree_holds_the_fields_of_every_kind() -> None:
    paths = dict(tree(Experiment, {"algorithm": Spatl()}))
    assert paths["algorithm.keep"] == ""
    assert paths["algorithm.mu"] == "fedprox"
    assert paths["algorithm.control.rate"] in ("", "scaffold")
    assert paths["data.split.train"] == ""
