"""Criteria by hand, and own ones whose scores cannot be ordered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import candidate
from flat_models import flatten, split_model
from pruners import pruner_of

from spatl_ray.config import Inference
from spatl_ray.errors import ConfigError
from spatl_ray.parameters import ChannelGroup, ModelVector, make_space
from spatl_ray.selection.candidate import Candidate
from spatl_ray.selection.criteria import CRITERIA, make_criterion
from spatl_ray.selection.salience import Scores, channel_norms, keep_most_salient
from spatl_ray.selection.selector import FixedRatio, KeptForInference

FIELD = "algorithm.criterion"
SPACE = make_space(
    [
        ("a.weight", "encoder", (2, 1, 1, 2), 0),
        ("a.bias", "encoder", (2,), 0),
        ("norm.weight", "encoder", (2,), 0),
        ("free", "encoder", (2,), -1),
        ("b.weight", "encoder", (3, 2), 1),
    ],
    (ChannelGroup("a", 2, 0), ChannelGroup("b", 3, 2)),
)
WEIGHTS = np.array([3, -4, 1, 0, 50, 60, 70, 80, 90, 90, 1, 1, 0, -2, 2, 2], dtype=np.float32)
UPDATE = np.array([0, 1, 6, 8, 9, 9, 9, 9, 9, 9, 2, 0, 0, 0, 0, -1], dtype=np.float32)
BY_HAND = {
    "l1": [7, 1, 2, 2, 4],
    "l2": [5, 1, 2**0.5, 2, 8**0.5],
    "update": [1, 10, 2, 0, 1],
    "mixed": [5**0.5, 10**0.5, 8**0.25, 0, 8**0.25],
    "taylor": [11, 1, 2, 2, 4],
}
GRADIENT = np.array([1, -2, 1, 7, 0, 0, 0, 0, 0, 0, 1, -1, 5, 1, -1, 1, 1e9], dtype=np.float32)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def by_hand() -> Candidate:
    """The tensors above, and a local parameter behind them that no criterion sees."""
    model = ModelVector(np.append(WEIGHTS, np.float32(1e9)), np.zeros(0))
    generator = np.random.default_rng(0)
    return Candidate(
        client=0,
        round=0,
        space=SPACE,
        model=model,
        update=UPDATE,
        state={},
        validate=lambda vector, limit=None, channels=None: None,
        generator=generator,
        gradient_of=lambda vector: GRADIENT,
    )


def test_the_built_in_ones_by_hand() -> None:
    assert CRITERIA.keys() == {*BY_HAND, "random", "norm_scale"}
    for name, expected in BY_HAND.items():
        assert make_criterion(name, FIELD)(by_hand()) == pytest.approx(expected, rel=1e-15)


def test_the_mixed_ones_order_does_not_depend_on_the_scale_of_either() -> None:
    model = ModelVector(np.append(100 * WEIGHTS, np.float32(0)), np.zeros(0))
    scaled = replace(by_hand(), model=model, update=UPDATE / 1000)
    scores = make_criterion("mixed", FIELD)(scaled)
    assert scores == pytest.approx(0.1**0.5 * np.array(BY_HAND["mixed"]), rel=1e-6)


def test_random_scores_are_those_of_the_decisions_generator() -> None:
    first, again = (make_criterion("random", FIELD)(by_hand()) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(first, np.random.default_rng(0).random(5))


def test_the_scale_of_the_norm_behind_a_layer() -> None:
    own = candidate(flatten(split_model("resnet20", width=4)))
    scale = np.arange(-2.0, 2.0, dtype=np.float32)
    weights = own.weights.copy()
    (first,) = (s for s in own.space.segments if s.name == "encoder.1.weight")
    weights[first.span] = scale
    vector = np.append(weights, own.model.parameters[len(weights) :])
    changed = replace(own, model=ModelVector(vector, own.model.buffers))
    assert make_criterion("norm_scale", FIELD)(changed)[:4].tolist() == [2, 1, 0, 1]


def test_a_layer_without_a_norm_behind_it_has_no_scale() -> None:
    with pytest.raises(ConfigError, match=r"norm behind every prunable layer, got none behind b"):
        make_criterion("norm_scale", FIELD)(by_hand())


def test_a_gradient_that_nobody_can_compute() -> None:
    own = candidate(flatten(split_model("lenet")))
    with pytest.raises(ConfigError, match="gradient_of must be given"):
        make_criterion("taylor", FIELD)(own)


@pytest.mark.parametrize("name", ["l1", "l2", "update"])
def test_they_are_norms_to_the_bit(name: str) -> None:
    own = candidate(flatten(split_model("resnet20", width=4)))
    vector = own.update if name == "update" else own.weights
    expected = channel_norms(own.space, vector, 1 if name == "l1" else 2)
    assert make_criterion(name, FIELD)(own).tobytes() == expected.tobytes()


# --- own ones -------------------------------------------------------------------------------------


def least_moved(candidate: Candidate) -> Scores:
    """The opposite of `update`."""
    return -CRITERIA["update"](candidate)


def drawn(candidate: Candidate) -> Scores:
    """Random channels."""
    return candidate.generator.random(candidate.space.channels)


def single_precision(candidate: Candidate) -> Any:
    return np.arange(candidate.space.channels, dtype=np.float32)


def a_list(candidate: Candidate) -> Any:
    return [1.0] * candidate.space.channels


def integers(candidate: Candidate) -> Any:
    return np.arange(candidate.space.channels)


def one_short(candidate: Candidate) -> Any:
    return np.ones(candidate.space.channels - 1)


def not_a_number(candidate: Candidate) -> Any:
    scores = np.ones(candidate.space.channels)
    scores[3] = np.nan
    return scores


def infinite(candidate: Candidate) -> Any:
    return np.full(candidate.space.channels, -np.inf)


def own(name: str) -> Scores:
    return make_criterion(f"test_criteria:{name}", FIELD)(by_hand())


def test_an_own_criterion_decides_what_travels_and_what_is_kept() -> None:
    model = flatten(split_model("lenet"))
    inference = Inference(keep=0.5, criterion="test_criteria:drawn")
    kept = KeptForInference(inference, pruner_of(model))
    selector = FixedRatio(model.layout.shared, 0.5, {}, "test_criteria:least_moved", kept=kept)
    selection = selector.select(candidate(model))
    ratios = {"encoder.0": 0.5, "encoder.3": 0.5}
    space = model.layout.shared
    expected = [
        keep_most_salient(space, scores, ratios)
        for scores in (least_moved(candidate(model)), drawn(candidate(model)))
    ]
    assert np.array_equal(selection.travel, expected[0])
    assert np.array_equal(selection.inference, expected[1])


def test_single_precision_scores_are_accepted() -> None:
    assert own("single_precision").tolist() == [0, 1, 2, 3, 4]
    assert own("single_precision").dtype == np.float64


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a_list", "a NumPy array of floats, got list"),
        ("integers", "a NumPy array of floats, got one of int64"),
        ("one_short", r"one score a channel, shape \(5,\), got \(4,\)"),
        ("not_a_number", "finite scores, got nan for channel 3"),
        ("infinite", "finite scores, got -inf for channel 0"),
    ],
)
def test_scores_that_cannot_be_ordered_select_nothing(name: str, rule: str) -> None:
    text = rf"^algorithm.criterion 'test_criteria:{name}' must return {rule}$"
    with pytest.raises(ConfigError, match=text):
        own(name)


def test_a_criterion_that_does_not_exist() -> None:
    """Found when the selector is made: before any client trains."""
    model = flatten(split_model("lenet"))
    with pytest.raises(ConfigError, match=r"^algorithm.criterion must name .* 'test_criteria:no'"):
        FixedRatio(model.layout.shared, 0.5, {}, "test_criteria:no")
    text = r"^algorithm.inference.criterion must name .* got 'no_such_module:drawn'"
    with pytest.raises(ConfigError, match=text):
        KeptForInference(Inference(criterion="no_such_module:drawn"), pruner_of(model))


def test_a_criterion_cannot_change_what_is_sent() -> None:
    given = candidate(flatten(split_model("mlp", hidden=[3])))
    for array in (given.update, given.weights, given.model.parameters, given.model.buffers):
        assert not array.flags.writeable
