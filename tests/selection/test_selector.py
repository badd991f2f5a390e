"""The fixed-ratio selector on a real network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from candidates import candidate
from flat_models import flatten, split_model
from hypothesis import given, settings
from hypothesis import strategies as st
from pruners import pruner_of

from spatl_ray.config import Criterion, Inference
from spatl_ray.errors import ConfigError
from spatl_ray.models.flat import FlatModel
from spatl_ray.selection.salience import channel_norms, keep_most_salient
from spatl_ray.selection.selector import FixedRatio, KeptForInference


def selector(
    model: FlatModel,
    criterion: Criterion = "l2",
    inference: Inference | None = None,
    keep: float = 0.5,
    keep_layers: Mapping[str, float] | None = None,
) -> FixedRatio:
    kept = KeptForInference(inference, pruner_of(model)) if inference else None
    return FixedRatio(model.layout.shared, keep, keep_layers or {}, criterion, kept=kept)


@pytest.mark.parametrize("criterion", ["l1", "l2", "update"])
def test_what_travels_is_what_is_salient(criterion: Criterion) -> None:
    model = flatten(split_model("lenet"))
    own = candidate(model)
    vector = own.update if criterion == "update" else own.weights
    scores = channel_norms(own.space, vector, 1 if criterion == "l1" else 2)
    selection = selector(model, criterion).select(own)
    ratios = {"encoder.0": 0.5, "encoder.3": 0.5}
    assert np.array_equal(selection.travel, keep_most_salient(own.space, scores, ratios))
    assert selection.inference is None
    assert selection.state == {}


def test_what_travels_and_what_is_kept_are_two_questions() -> None:
    model = flatten(split_model("lenet"))
    own = candidate(model)
    both = selector(model, "update", inference=Inference(keep=0.25, criterion="l1")).select(own)
    travel = selector(model, "update").select(own).travel
    kept = selector(model, "l1", keep=0.25).select(own).travel
    assert both.inference is not None
    assert np.array_equal(both.travel, travel)
    assert np.array_equal(both.inference, kept)


def test_layers_have_their_own_ratios() -> None:
    model = flatten(split_model("lenet"))
    travel = selector(model, keep_layers={"encoder.0": 1.0}).select(candidate(model)).travel
    assert travel[:6].all()
    assert travel[6:].sum() == 8


def test_the_same_candidate_gives_the_same_decision() -> None:
    model = flatten(split_model("resnet20", width=4))
    own = candidate(model)
    first, again = (selector(model).select(own).travel for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(
        selector(model, "update").select(candidate(model, 1)).travel,
        selector(model, "update").select(candidate(model, 2)).travel,
    )


def test_only_the_encoder_counts_if_the_predictor_is_shared() -> None:
    alone, whole = flatten(split_model("lenet")), flatten(split_model("lenet"), shared=True)
    travel = [selector(m).select(candidate(m)).travel for m in (alone, whole)]
    assert np.array_equal(*travel)


def test_an_encoder_without_layers_has_nothing_to_select() -> None:
    model = flatten(split_model("mlp", hidden=[]))
    with pytest.raises(ConfigError, match=r"algorithm.selection must be false .* got true"):
        selector(model)


def test_an_unknown_layer() -> None:
    with pytest.raises(ConfigError, match=r"\(encoder.0, encoder.3\), got 'encoder.1'"):
        selector(flatten(split_model("lenet")), keep_layers={"encoder.1": 0.5})


# --- a budget of FLOPs ----------------------------------------------------------------------------


@given(st.floats(0.01, 1), st.floats(0.01, 2))
@settings(deadline=None, max_examples=40)
def test_a_budget_of_flops_bounds_what_is_kept(keep: float, budget: float) -> None:
    """The share of the channels if that fits, else as many as fit at equal ratios."""
    model = flatten(split_model("lenet"))
    own = candidate(model, budget_flops=budget)
    free = selector(model, inference=Inference(keep=keep)).select(candidate(model))
    assert free.inference is not None
    assert free.inference_flops is not None
    least = pruner_of(model).floor
    if free.inference_flops > budget and budget < least:
        with pytest.raises(ConfigError, match=r"^a budget of flops must be at least 0\.\d+ "):
            selector(model, inference=Inference(keep=keep)).select(own)
        return
    bound = selector(model, inference=Inference(keep=keep)).select(own)
    assert bound.inference is not None
    assert bound.inference_flops is not None
    assert bound.inference_flops <= max(budget, free.inference_flops)
    if free.inference_flops <= budget:
        assert np.array_equal(bound.inference, free.inference)
    else:
        assert bound.inference_flops <= budget
        assert not (bound.inference & ~free.inference).any()


def test_a_budget_of_flops_does_not_change_what_travels() -> None:
    model = flatten(split_model("lenet"))
    free, tight = (selector(model).select(candidate(model, budget_flops=b)) for b in (None, 0.01))
    assert np.array_equal(free.travel, tight.travel)
    assert tight.inference is None
