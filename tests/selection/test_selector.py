"""The fixed-ratio selector on a real network."""

from __future__ import annotations

import numpy as np
import pytest
from candidates import candidate
from flat_models import flatten, split_model
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.config import Criterion, Inference
from spatl_ray.errors import ConfigError
from spatl_ray.models.flat import FlatModel
from spatl_ray.selection.salience import channel_norms, keep_most_salient, kept_channels
from spatl_ray.selection.selector import FixedRatio


def selector(model: FlatModel, criterion: Criterion = "l2", **more: object) -> FixedRatio:
    options = {"keep": 0.5, "keep_layers": {}, "inference": None, **more}
    return FixedRatio(model.layout.shared, criterion=criterion, **options)


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
    model = flatten(split_model("lenet"))
    own = candidate(model, budget_flops=budget)
    selection = selector(model, inference=Inference(keep=keep)).select(own)
    assert selection.inference is not None
    kept = {g.name: selection.inference[g.offset :][: g.channels].sum() for g in own.space.groups}
    share = min(keep, budget)
    assert kept == {g.name: kept_channels(share, g.channels) for g in own.space.groups}
    # A layer's FLOPs are in proportion to channels in times channels out; 6 and 16 of them here.
    first, second = kept["encoder.0"] / 6, kept["encoder.3"] / 16
    assert first <= share + 0.5 / 6 or kept["encoder.0"] == 1
    assert second * first <= share + 0.5 / 16 or kept["encoder.3"] == 1


def test_a_budget_of_flops_does_not_change_what_travels() -> None:
    model = flatten(split_model("lenet"))
    free, tight = (selector(model).select(candidate(model, budget_flops=b)) for b in (None, 0.01))
    assert np.array_equal(free.travel, tight.travel)
    assert tight.inference is None
