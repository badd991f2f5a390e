"""Verdicts: what is rejected, what is clipped, and what exactly counts then."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.aggregation.exact import limit
from spatl_ray.aggregation.verdict import ACCEPTED, Verdict, judge_terms, judge_update
from spatl_ray.parameters import Array
from spatl_ray.update import VALUE_TYPES, WHOLE, Part, Update


def update(**parts: Array) -> Update:
    return Update(3, 7, 5, 100, {name: Part(WHOLE, values) for name, values in parts.items()})


@pytest.mark.parametrize("kind", list(VALUE_TYPES))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["delta", "buffers"])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_one_bad_value_in_any_part_rejects(
    kind: str, bad: float, part: str, clip_norm: float | None
) -> None:
    parts = {name: np.ones(9, dtype=VALUE_TYPES[kind]) for name in ("delta", "buffers")}
    assert judge_update(update(**parts), None) is ACCEPTED
    parts[part][4] = bad
    verdict = judge_update(update(**parts), clip_norm)
    assert verdict == Verdict("rejected", 1.0, f"{part} holds NaN or infinite values")
    assert not verdict.counts


def test_what_float16_cannot_hold_is_infinite_and_rejected() -> None:
    with np.errstate(over="ignore"):
        values = np.array([1e5]).astype(np.float16)
    assert judge_update(update(delta=values), None).status == "rejected"


@given(
    seed=st.integers(0, 2**32),
    clip_norm=st.floats(1e-3, 1e3),
    kind=st.sampled_from(list(VALUE_TYPES)),
)
def test_clipping_bounds_the_norm_and_keeps_the_direction(
    seed: int, clip_norm: float, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(20) * rng.choice([1e-3, 1.0, 100.0])).astype(VALUE_TYPES[kind])
    sent = update(delta=values, control=2 * values)
    verdict = judge_update(sent, clip_norm)
    counted = verdict.applied(sent)
    dense = values.astype(np.float64)
    norm = np.linalg.norm(dense)
    if norm <= clip_norm:
        assert verdict is ACCEPTED
        assert counted is sent
        return
    assert verdict.status == "clipped"
    assert verdict.counts
    assert verdict.reason == f"L2 norm {norm:.4g} is over {clip_norm:g}"
    delta = counted.parts["delta"].values
    assert delta.dtype == np.float64
    assert delta == pytest.approx(dense * (clip_norm / norm), rel=1e-12)
    assert np.linalg.norm(delta) <= clip_norm * (1 + 1e-12)
    both = (sent.parts["control"].values.astype(np.float64), counted.parts["control"].values)
    assert both[1] == pytest.approx(both[0] * verdict.scale, rel=1e-12)
    named = (counted.round, counted.client, counted.steps, counted.samples)
    assert named == (3, 7, 5, 100)


def test_a_norm_at_the_bound_is_not_clipped() -> None:
    assert judge_update(update(delta=np.array([3.0, 4.0])), 5.0) is ACCEPTED


def test_a_norm_that_overflows_cannot_be_scaled() -> None:
    sent = update(delta=np.array([1e200, 1e200]))
    assert judge_update(sent, 1.0).status == "rejected"
    assert judge_update(sent, None) is ACCEPTED  # its terms are judged next


def test_only_delta_has_a_norm() -> None:
    assert judge_update(update(buffers=np.full(3, 1e4)), 1.0) is ACCEPTED
    assert judge_update(update(), 1.0) is ACCEPTED


@pytest.mark.parametrize("levels", [1, 2])
def test_terms_stay_within_what_is_summed_exactly(levels: int) -> None:
    bound = limit(levels) / 4
    inside, outside = np.nextafter(bound, 0), bound
    for sign in (1, -1):
        terms = {"delta": Part(WHOLE, np.array([0.0, sign * inside]))}
        assert judge_terms(terms, levels) is ACCEPTED
        terms = {**terms, "control": Part(WHOLE, np.array([0.0, sign * outside]))}
        verdict = judge_terms(terms, levels)
        assert verdict.status == "rejected"
        assert verdict.reason == f"control reaches {outside:.4g}, over {bound:.4g}"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_terms_that_are_not_finite_are_rejected(bad: float) -> None:
    """An update may be finite and what is derived from it not (a division that overflows)."""
    assert not judge_terms({"control": Part(WHOLE, np.array([1.0, bad]))}, 1).counts


def test_no_values_are_no_reason() -> None:
    assert judge_update(update(delta=np.zeros(0, dtype=np.float32)), 1.0) is ACCEPTED
    assert judge_terms({"delta": Part(WHOLE, np.zeros(0))}, 1) is ACCEPTED
