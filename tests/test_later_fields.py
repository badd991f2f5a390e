"""Fields that came later change no run id and no dump as long as they have their default."""

from __future__ import annotations

from typing import Annotated

import pytest

from spatl_ray.config import EVERYTHING, LATER, Strict
from spatl_ray.experiments import load_experiment

BEFORE = {
    "demo fedavg": "demo-fedavg-s1-3f1f1caa",
    "demo spatl": "demo-spatl-s1-a0ba7b4c",
    "fashion_lenet scaffold": "fashion_lenet-scaffold-s0-39e3f9bf",
    "stragglers fedper": "stragglers-fedper-s1-22006c94",
    "cifar10_vgg11 fedprox": "cifar10_vgg11-fedprox-s0-b101014f",
}
"""Run ids of presets under an algorithm, before any field was marked: commit 12f80a6."""


class Inner(Strict):
    """A section that has grown."""

    old: int = 1
    new: Annotated[int | None, LATER] = None


class Outer(Strict):
    """One that holds it."""

    inner: Inner = Inner()
    also: Annotated[Inner | None, LATER] = None


def test_a_dump_is_that_of_before() -> None:
    assert Outer().model_dump() == {"inner": {"old": 1}}
    assert Outer().model_dump(exclude={"also"}) == {"inner": {"old": 1}}
    assert Outer().model_dump_json() == '{"inner":{"old":1}}'


def test_what_is_set_is_in_the_dump_and_comes_back() -> None:
    set_ = Outer(inner=Inner(new=3), also=Inner())
    dumped = {"inner": {"old": 1, "new": 3}, "also": {"old": 1}}
    assert set_.model_dump() == dumped
    assert Outer.model_validate(dumped) == set_
    assert Outer.model_validate(Outer().model_dump()) == Outer()


def test_everything_can_be_asked_for() -> None:
    whole = {"inner": {"old": 1, "new": None}, "also": None}
    assert Outer().model_dump(context=EVERYTHING) == whole


@pytest.mark.parametrize("name", BEFORE)
def test_run_ids_are_those_of_before(name: str) -> None:
    preset, algorithm = name.split()
    assert load_experiment(preset, [f"algorithm={algorithm}"]).run_id == BEFORE[name]
