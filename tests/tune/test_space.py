"""Search spaces: what a YAML text means, and what is refused before anything starts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from, read_mapping
from spatl_ray.overrides import overridden
from tune.space import SPACES, Space, check_space, default_space, parse_space

ALL_KINDS = """
training.lr: {loguniform: [1e-3, 1e-1], points: 3}
algorithm.keep: {uniform: [0.25, 0.75], points: 3}
training.epochs: {int: [1, 3]}
training.batch_size: {logint: [8, 128], points: 3}
wire.uplink: {choice: [null, bfloat16]}
algorithm.control.variate, algorithm.control.strength: {choice: [[derived, 1.0], [sent, 0.5]]}
training.momentum: 0.5
"""


@pytest.fixture
def space() -> Space:
    return parse_space(ALL_KINDS, "the space")


def test_a_point_becomes_the_experiment_it_says(space: Space) -> None:
    point = {
        "training.lr": 0.01,
        "algorithm.keep": 0.3,
        "training.epochs": 2,
        "training.batch_size": 32,
        "wire.uplink": "bfloat16",
        "algorithm.control.variate, algorithm.control.strength": '["sent", 0.5]',
    }
    experiment = experiment_from(overridden(read_mapping("demo"), space.texts(point)))
    assert (experiment.training.lr, experiment.training.epochs) == (0.01, 2)
    assert (experiment.training.batch_size, experiment.training.momentum) == (32, 0.5)
    assert experiment.wire.uplink == "bfloat16"
    control = experiment.algorithm.control  # type: ignore[union-attr]
    assert (control.variate, control.strength) == ("sent", 0.5)


def test_a_grid_has_every_combination_once(space: Space) -> None:
    points = space.grid()
    assert len(points) == 3 * 3 * 3 * 3 * 2 * 2
    assert len({json.dumps(point) for point in points}) == len(points)
    values = {key: sorted({p[key] for p in points}) for key in list(points[0])[:4]}
    # sqrt(1e-3 * 1e-1) = 1e-2; (0.25 + 0.75) / 2; sqrt(8 * 128) = 32.
    assert values["training.lr"] == pytest.approx([1e-3, 1e-2, 1e-1])
    assert values["algorithm.keep"] == [0.25, 0.5, 0.75]
    assert values["training.epochs"] == [1, 2, 3]
    assert values["training.batch_size"] == [8, 32, 128]


def test_drawn_points_are_inside_and_spread(space: Space) -> None:
    generator = np.random.Generator(np.random.PCG64(3))
    points = [space.sample(generator) for _ in range(400)]
    rates = np.array([point["training.lr"] for point in points])
    assert rates.min() >= 1e-3
    assert rates.max() <= 1e-1
    # Half of a log-uniform range lies below its geometric mean.
    assert abs((rates < 1e-2).mean() - 0.5) < 0.1
    assert {point["training.epochs"] for point in points} == {1, 2, 3}
    assert {point["wire.uplink"] for point in points} == {None, "bfloat16"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold at least one range"),
        ("training.lr: 0.1", "must hold at least one range, got fixed values only"),
        ("[1, 2]", "must hold at least one range"),
        ("training.lr: {unifrom: [0, 1]}", "did you mean 'uniform'?"),
        ("training.lr: {uniform: [0, 1], int: [1, 2]}", "must be one of uniform, loguniform"),
        ("training.lr: {uniform: [0.1]}", "must be two finite numbers [low, high], got [0.1]"),
        ("training.lr: {uniform: [0.1, .inf]}", "must be two finite numbers"),
        ("training.lr: {uniform: [0.2, 0.1]}", "must have low < high, got [0.2, 0.1]"),
        ("training.lr: {loguniform: [0, 0.1]}", "must have low > 0, got [0, 0.1]"),
        ("training.epochs: {int: [1, 2.5]}", "must be two integers [low, high], got [1, 2.5]"),
        ("wire.uplink: {choice: []}", "choice must be a list of at least one value, got []"),
        ("wire.uplink: {choice: [null, null]}", "choices must differ"),
        ("a, b: {choice: [[1, 2], [3]]}", "a choice must be a list of 2 values, got [3]"),
        ("a, b: {uniform: [0, 1]}", "names 2 fields, which only a choice can set"),
        ("training.lr: {uniform: [0, 1], points: 1}", "points must be an integer of at least 2"),
        ("rounds: {int: [1, 5]}", "rounds must not be searched"),
        ("engine.workers: {int: [1, 5]}", "engine.workers must not be searched"),
        ("a: {int: [1, 2]}\na, b: {choice: [[1, 2]]}", "a must be set by one range only"),
        ("a, a: {choice: [[1, 2]]}", "a must be set by one range only"),
        ("5: {int: [1, 2]}", "a key must be the name of a field, or of several with commas"),
        ("on: {int: [1, 2]}", "commas between, got True"),
        ("a,: {choice: [[1, 2]]}", "commas between, got 'a,'"),
        ("a=b: {int: [1, 2]}", "commas between, got 'a=b'"),
        ("a: 2020-01-01\nb: {int: [1, 2]}", "a must be made of numbers, texts, true, false, null"),
        ("a: {choice: [2020-01-01]}", "got date 2020-01-01; write it in quotes if it is text"),
        ("a: {choice: [[[2020-01-01]]]}", "got date 2020-01-01"),
        ("a: {choice: [!!binary aGk=]}", "a must be made of numbers"),
        ("a: {choice: [{1: 2}]}", "a: the keys of a mapping must be text, got 1"),
        ("a: {choice: [1, true]}", "choices must differ, got [1, True]"),
        ("a: {choice: [[1], '[1]']}", "choices must differ"),
        ("a: {uniform: [false, true]}", "must be two finite numbers"),
        ("a: {int: [false, true]}", "must be two integers"),
        (
            "seed: {int: [0, 5]}",
            "seed must not be searched: trials that are measured on other data",
        ),
        ("data.split.train: {uniform: [0.5, 0.9]}", "data.split.train must not be searched"),
        ("evaluation: {choice: [{every: 2}]}", "evaluation must not be searched"),
        ("clients: {int: [5, 10]}", "clients must not be searched"),
        ("partition.beta: {uniform: [0.1, 1]}", "partition.beta must not be searched"),
        (
            "training: {choice: [{lr: 0.1}]}\ntraining.lr: {uniform: [0.1, 0.2]}",
            "training and training.lr must not be set both",
        ),
        (
            "training: {lr: 0.1}\ntraining.lr: {uniform: [0.1, 0.2]}",
            "must be one of uniform, loguniform, int, logint, choice, got lr",
        ),
        (
            "algorithm: {choice: [fedavg, {name: spatl}]}\nalgorithm.server_lr: {uniform: [1, 2]}",
            "algorithm and algorithm.server_lr must not be set both",
        ),
    ],
)
def test_a_bad_space_names_field_value_and_rule(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(text, "the space")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algorithm.kep: {uniform: [0.1, 1]}", "algorithm.kep is no field of spatl; did you mean"),
        ("training.lrr: {uniform: [0.1, 1]}", "did you mean training.lr"),
        ("algorithm.mu: {uniform: [0.1, 1]}", "algorithm.mu is no field of spatl"),
        ("algorithm.keep: {uniform: [0.1, 1.5]}", "algorithm.keep must be in (0, 1], got 1.5"),
        ("wire.uplink: {choice: [float8]}", "wire.uplink must be one of float32"),
        ("algorithm: {choice: [fedavg, spattl]}", "did you mean 'spatl'?"),
        # Sound one by one, but not together.
        (
            "algorithm.control.strength: {uniform: [0.5, 1]}",
            "strength must be 1 with variate=derived",
        ),
    ],
)
def test_a_space_is_tried_on_the_experiment(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_space(parse_space(text, "the space"), read_mapping("demo"), ())
    assert message in str(caught.value)


def test_a_name_and_its_fields_are_searched_together() -> None:
    text = "algorithm: {choice: [fedavg, fedprox]}\nalgorithm.server_lr: {uniform: [0.5, 1]}"
    check_space(parse_space(text, "the space"), read_mapping("demo"), ())


def test_what_an_experiment_must_pass_is_asked_of_the_corners() -> None:
    space = parse_space("algorithm.keep: {uniform: [0.1, 1]}", "the space")

    def check(experiment: Experiment) -> None:
        keep = experiment.algorithm.keep  # type: ignore[union-attr]
        if keep == 1:
            raise ConfigError(f"keep must be less than 1, got {keep}")

    with pytest.raises(ConfigError, match=r"got 1\.0 \(of the space, at algorithm\.keep=1\.0\)"):
        check_space(space, read_mapping("demo"), (), check)


def test_a_space_knows_its_points(space: Space) -> None:
    for point in space.grid():
        assert space.holds(point)
    point = space.grid()[0]
    assert not space.holds({})
    assert not space.holds({**point, "more": 1})
    assert not space.holds({**point, "training.epochs": 1.0})
    assert not space.holds({**point, "training.lr": 0.2})
    assert not space.holds({**point, "wire.uplink": "float16"})


def test_a_grid_needs_to_know_how_many_values() -> None:
    space = parse_space("training.lr: {loguniform: [1e-3, 1e-1]}", "the space")
    with pytest.raises(
        ConfigError, match=r"training\.lr must say into how many values a grid cuts it"
    ):
        space.grid()


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_space_fits_its_algorithm(path: Any) -> None:
    name = path.stem
    algorithm = {"algorithm.agent={budget: 0.6}"} if name == "spatl_agent" else set()
    first = "spatl" if name == "spatl_agent" else name
    overrides = ["algorithm=" + first, *algorithm]
    if name == "spatl_agent":
        raw: dict[str, Any] = {"data": {"name": "digits"}, "algorithm": {"name": "spatl"}}
    else:
        raw = {"data": {"name": "digits"}}
    experiment = experiment_from(overridden(raw, overrides))
    assert default_space(experiment) == path
    check_space(parse_space(path.read_text(), path.name), raw, overrides)


def test_an_own_algorithm_needs_a_space() -> None:
    experiment = experiment_from({"algorithm": "own_parts:Mine"})
    with pytest.raises(ConfigError, match="--space must be given for algorithm 'own_parts:Mine'"):
        default_space(experiment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.epochs: {int: [1, 1000000000000]}", "must say into how many values a grid cuts"),
        (
            "training.epochs: {int: [1, 1000]}\ntraining.batch_size: {int: [1, 1000]}",
            "the grid must have at most 100,000 points, got 1,000,000",
        ),
    ],
)
def test_a_grid_that_nobody_can_mean_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_space(text, "the space").grid()
