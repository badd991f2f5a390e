"""Frozen parts keep their bits, whatever else is trained, and for how long."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flat_models import flatten, split_model, train
from torch import Tensor

from spatl_ray.errors import ConfigError
from spatl_ray.models.flat import FlatModel
from spatl_ray.models.split import ENCODER, PREDICTOR
from spatl_ray.parameters import ModelVector
from spatl_ray.training.local import LocalTask, Phase


def part(model: FlatModel, vector: ModelVector, name: str) -> np.ndarray:
    """A part's parameters and buffers."""
    layout = model.layout
    parameters = [vector.parameters[s] for s in layout.parameters.ranges(frozenset({name}))]
    buffers = [vector.buffers[s] for s in layout.buffers.ranges(frozenset({name}))]
    return np.concatenate(parameters + buffers)


def pushed(model: FlatModel, *phases: Phase) -> LocalTask:
    """A task in which everything that could move a frozen part is on."""
    start, n = model.read(), model.layout.parameters.size
    ones = np.ones(n, dtype=np.float32)
    return LocalTask(start, offset=ones, mu=0.5, anchor=-ones, phases=phases)


@pytest.mark.parametrize("name", ["resnet20", "lenet"])
@pytest.mark.parametrize(("trained", "frozen"), [(PREDICTOR, ENCODER), (ENCODER, PREDICTOR)])
def test_a_frozen_part_keeps_its_bits(name: str, trained: str, frozen: str) -> None:
    model = flatten(split_model(name), shared=True)
    task = pushed(model, Phase(frozenset({trained})))
    end = train(model, task, epochs=2, weight_decay=0.1).end
    assert np.array_equal(part(model, end, frozen), part(model, task.start, frozen))
    assert not np.array_equal(part(model, end, trained), part(model, task.start, trained))


def test_momentum_does_not_move_a_part_into_the_next_phase() -> None:
    model = flatten(split_model("resnet20", width=4), shared=True)
    head, body = Phase(frozenset({PREDICTOR}), 2), Phase(frozenset({ENCODER}), 1)
    task = pushed(model, head, body)
    both = train(model, task, weight_decay=0.1)
    first = train(model, pushed_from(task, head), weight_decay=0.1)
    assert np.array_equal(part(model, both.end, PREDICTOR), part(model, first.end, PREDICTOR))
    assert not np.array_equal(part(model, both.end, ENCODER), part(model, first.end, ENCODER))
    assert (first.steps, both.steps) == (6, 9)
    assert first.part_steps == {ENCODER: 0, PREDICTOR: 6}
    assert both.part_steps == {ENCODER: 3, PREDICTOR: 6}


def test_steps_are_counted_for_each_part() -> None:
    model = flatten(split_model("mlp"), shared=True)
    head = frozenset({PREDICTOR})
    phases = (Phase(head, steps=2), Phase(steps=3), Phase(frozenset({ENCODER}), epochs=1))
    result = train(model, pushed(model, *phases), steps=50)
    assert result.part_steps == {ENCODER: 3 + 3, PREDICTOR: 2 + 3}
    assert result.steps == 2 + 3 + 3


def pushed_from(task: LocalTask, *phases: Phase) -> LocalTask:
    """The task with other phases."""
    return LocalTask(task.start, task.offset, task.mu, task.anchor, phases)


def test_dropout_of_a_frozen_part_is_off() -> None:
    model = flatten(split_model("Dropping", dtype=torch.float64))
    seen: list[Tensor] = []
    encoder = model.module.get_submodule("encoder")
    encoder.register_forward_hook(lambda module, args, output: seen.append(output))
    train(model, LocalTask(model.read(), phases=(Phase(frozenset({PREDICTOR})),)), steps=3)
    assert all(output.ne(0).all() for output in seen)
    train(model, LocalTask(model.read()), steps=1)
    assert seen[-1].eq(0).any()


@pytest.mark.parametrize("parts", [frozenset({"haed"}), frozenset()])
def test_a_phase_in_which_nothing_trains_is_refused(parts: frozenset[str]) -> None:
    model = flatten(split_model("mlp"))
    got = ", ".join(parts) or "none"
    with pytest.raises(ConfigError, match=rf"\(encoder, predictor\), got {got}$"):
        train(model, LocalTask(model.read(), phases=(Phase(parts),)), steps=1)
