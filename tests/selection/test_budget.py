"""The most channels that fit into a client's bytes: by closed form, and on SPATL's real payloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from candidates import candidate
from flat_models import flatten, split_model
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spatl_ray import config
from spatl_ray.algorithms.base import BUFFERS, CONTROL, DELTA, MODEL, ClientView, Setting
from spatl_ray.algorithms.spatl import SELECTED, Spatl
from spatl_ray.arrays import Bits
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ConfigError
from spatl_ray.models.flat import FlatModel
from spatl_ray.parameters import ModelVector
from spatl_ray.selection.budget import largest_within, steps_of
from spatl_ray.selection.candidate import Candidate
from spatl_ray.selection.salience import keep_most_salient, kept_channels
from spatl_ray.training.local import LocalResult
from spatl_ray.update import WHOLE, Update
from spatl_ray.wire.codec import decode_update, encode

pytestmark = pytest.mark.integration

LENET = flatten(split_model("lenet"))
SPACE = LENET.layout.shared
WIDTHS = np.repeat([1 * 25 + 1, 6 * 25 + 1], [6, 16])
"""Values a channel of LeNet: the filter and its bias."""


# --- the search -----------------------------------------------------------------------------------


def fitting(budget: float | None, keep: float = 1.0, second: float = 1.0) -> tuple[Bits, list[int]]:
    """What is kept of LeNet with a byte a value and a header of 10, and the sizes that were tried."""
    tried: list[int] = []

    def bytes_of(bits: Bits) -> int:
        tried.append(10 + int(WIDTHS @ bits))
        return tried[-1]

    own = candidate(LENET, budget_bytes=budget, bytes_of=bytes_of)
    ratios = {"encoder.0": keep, "encoder.3": second}
    bits = largest_within(own, ratios, lambda factor: kept(factor, ratios))
    return bits, tried


def kept(factor: float, ratios: Mapping[str, float]) -> Bits:
    scores = np.arange(SPACE.channels, dtype=float)
    return keep_most_salient(SPACE, scores, {n: factor * r for n, r in ratios.items()})


LEAST, DENSE = 10 + 26 + 151, 10 + 6 * 26 + 16 * 151


@given(st.floats(LEAST, DENSE + 10), st.floats(0.01, 1), st.floats(0.01, 1))
@settings(deadline=None)
def test_the_largest_common_factor_that_fits(budget: float, keep: float, second: float) -> None:
    ratios = {"encoder.0": keep, "encoder.3": second}
    bits, tried = fitting(budget, keep, second)
    size = 10 + int(WIDTHS @ bits)
    assert size <= budget
    # By trying a fine grid of factors instead.
    sizes = [10 + int(WIDTHS @ kept(f, ratios)) for f in np.linspace(0, 1, 400)]
    assert size >= max(each for each in sizes if each <= budget)
    assert len(tried) <= 2 + np.ceil(np.log2(1 + 22))


@given(st.floats(0.001, 1), st.floats(0.001, 1), st.floats(0, 1))
@settings(deadline=None)
def test_between_two_steps_nothing_changes(keep: float, second: float, factor: float) -> None:
    ratios = {"encoder.0": keep, "encoder.3": second}
    steps = steps_of(SPACE, ratios)
    assume(np.abs(steps - factor).min() > 1e-9)
    below = float(steps[steps < factor].max(initial=0))
    assert np.array_equal(kept(below, ratios), kept(factor, ratios))


@given(st.floats(0.001, 1), st.floats(0.001, 1))
@settings(deadline=None)
def test_a_step_adds_at_most_one_channel_a_layer(keep: float, second: float) -> None:
    ratios = {"encoder.0": keep, "encoder.3": second}
    bits = np.array([kept(factor, ratios) for factor in [0.0, *steps_of(SPACE, ratios)]])
    for layer, ratio in ((bits[:, :6], keep), (bits[:, 6:], second)):
        counts = layer.sum(axis=1)
        assert set(np.diff(counts)) <= {0, 1}
        assert (counts[0], counts[-1]) == (1, kept_channels(ratio, layer.shape[1]))


def test_without_a_budget_nothing_is_encoded() -> None:
    bits, tried = fitting(None)
    assert bits.all()
    assert tried == []


def test_what_fits_is_encoded_once() -> None:
    bits, tried = fitting(DENSE)
    assert bits.all()
    assert tried == [DENSE]


def test_less_than_a_channel_a_layer_is_refused() -> None:
    assert fitting(LEAST)[0].sum() == 2
    text = (
        rf"^devices.budget_bytes_up must be at least {LEAST}, the bytes of one channel a layer, "
        rf"got {LEAST - 0.5} for client 7$"
    )
    with pytest.raises(ConfigError, match=text):
        fitting(LEAST - 0.5)


def test_a_budget_needs_a_measure() -> None:
    with pytest.raises(ConfigError, match=r"budget_bytes needs bytes_of, got 100 without it"):
        candidate(LENET, budget_bytes=100)


# --- SPATL's payloads -----------------------------------------------------------------------------


def bound(model: FlatModel, uplink: str, **options: Any) -> Spatl:
    """SPATL on a network."""
    algorithm = Spatl(config.Spatl.model_validate(options))
    algorithm.bind(
        Setting(
            model=model.split,
            spec=SampleSpec((1, 16, 16), 10),
            layout=model.layout,
            training=config.Training(),
            clients=4,
            uplink=uplink,
            downlink="float32",
            seed=0,
        )
    )
    return algorithm


def view_of(algorithm: Spatl, start: ModelVector, budget: float | None) -> ClientView:
    """A client in its first round."""
    server = algorithm.start_server(start)
    return ClientView(
        client=2,
        round=3,
        lr=0.05,
        samples=30,
        received={name: server[name] for name in (MODEL, BUFFERS, CONTROL) if name in server},
        state=algorithm.start_client(start),
        validate=lambda vector: None,
        seed=0,
        budget_bytes_up=budget,
    )


def trained(start: ModelVector) -> LocalResult:
    """A model that has moved by noise."""
    noise = np.random.default_rng(1).normal(size=start.parameters.size).astype(np.float32)
    end = ModelVector(start.parameters + noise, start.buffers + 1)
    return LocalResult(end, steps=5, part_steps={}, samples=40, loss=1.0)


def payload(algorithm: Spatl, view: ClientView, result: LocalResult) -> bytes:
    """What the engine sends for the client's proposal."""
    parts = algorithm.propose(view, [result]).parts
    sent = Update(view.round, view.client, result.steps, view.samples, parts)
    return encode(sent, algorithm.spaces(), algorithm.remembered(view.state))


VARIANTS: dict[str, dict[str, Any]] = {
    "derived": {},
    "sent": {"control": {"variate": "sent"}},
    "no control": {"control": None},
    "feedback": {
        "control": {"variate": "sent"},
        "denominator": "cohort",
        "error_feedback": True,
    },
    "shared": {"transfer": False, "keep_layers": {}},
}


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    keep=st.floats(0.05, 1),
    share=st.floats(0, 1.2),
    uplink=st.sampled_from(["float32", "float16", "bfloat16"]),
    again=st.booleans(),
)
@settings(deadline=None, max_examples=12)
def test_a_payload_is_within_the_budget(
    variant: str, keep: float, share: float, uplink: str, again: bool
) -> None:
    model = flatten(split_model("resnet20", width=4), shared=variant == "shared")
    algorithm = bound(model, uplink, keep=keep, **VARIANTS[variant])
    start = model.read()
    free, result = view_of(algorithm, start, None), trained(start)
    if again:  # the receiver remembers the whole selection's mask
        chosen = algorithm.propose(free, [result]).private[SELECTED]
        free = replace(free, state={**free.state, SELECTED: chosen})
    whole = len(payload(algorithm, free, result))
    least = least_bytes(algorithm, free, result)
    budget = least + share * (whole - least)
    got = payload(algorithm, replace(free, budget_bytes_up=budget), result)
    assert len(got) <= budget
    if budget >= whole:
        assert got == payload(algorithm, free, result)
    elif not again:  # a step adds at most one channel a layer, all of which are in `least`
        assert budget - len(got) < least
    remembered = algorithm.remembered(free.state)
    parts = decode_update(got, algorithm.spaces(), remembered).parts
    assert parts[BUFFERS].mask == WHOLE
    assert all(part.mask == parts[DELTA].mask for n, part in parts.items() if n != BUFFERS)


def least_bytes(algorithm: Spatl, view: ClientView, result: LocalResult) -> int:
    """What the error says is needed, which is then indeed enough, to the byte."""
    with pytest.raises(ConfigError, match=r"^devices.budget_bytes_up must be at least") as caught:
        payload(algorithm, replace(view, budget_bytes_up=1.0), result)
    text = str(caught.value)
    assert text.endswith("got 1 for client 2")
    least = int(text.split("at least ")[1].split(",")[0])
    assert len(payload(algorithm, replace(view, budget_bytes_up=least), result)) == least
    with pytest.raises(ConfigError, match=str(least)):
        payload(algorithm, replace(view, budget_bytes_up=least - 1), result)
    return least


def test_an_own_selector_sees_both_budgets() -> None:
    algorithm = bound(LENET, "float32")
    seen: list[Candidate] = []
    inner = algorithm.selector
    assert inner is not None

    class Watching:
        """Notes what it is asked."""

        def start(self) -> dict[str, np.ndarray]:
            return {}

        def select(self, candidate: Candidate) -> Any:
            seen.append(candidate)
            return inner.select(candidate)

    algorithm.selector = Watching()
    start = LENET.read()
    view = replace(view_of(algorithm, start, 1e6), budget_flops=0.3)
    travel = algorithm.propose(view, [trained(start)]).private[SELECTED] != 0
    (own,) = seen
    assert (own.budget_bytes, own.budget_flops) == (1e6, 0.3)
    assert own.bytes_of is not None
    assert own.bytes_of(travel) == len(payload(algorithm, view, trained(start)))
