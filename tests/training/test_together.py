"""Clients trained at once agree with each of them trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from flat_models import (
    CHARACTERS,
    LENGTH,
    LR,
    digits,
    flatten,
    order,
    split_model,
    text_model,
)
from torch import Tensor

from spatl_ray.config import Augment, Training
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ConfigError
from spatl_ray.models.flat import FlatModel
from spatl_ray.parameters import ModelVector
from spatl_ray.training.local import Job, LocalResult, LocalTask, Phase, Trainer, go_together
from spatl_ray.training.samples import Samples
from spatl_ray.training.together import check_together

SIZES = (13, 40, 8, 1, 21)
"""Samples of each client: other numbers of steps, and last batches of other lengths."""

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}
"""Largest difference of a parameter, over the largest movement of one."""

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "lenet": {},
    "resnet20": {"width": 2, "norm": "group"},
}


def network(name: str, dtype: torch.dtype = torch.float64) -> FlatModel:
    return flatten(split_model(name, dtype=dtype, **NETWORKS[name]))


def jobs_for(model: FlatModel, tasks: Sequence[LocalTask], shared: bool = True) -> list[Job]:
    """A job a task, on samples of a tensor that all share or on tensors of their own."""
    x, y = digits(sum(SIZES), model.parameters.dtype)
    made, start = [], 0
    for client, (task, n) in enumerate(zip(tasks, SIZES, strict=True)):
        rows = np.arange(start, start := start + n)
        own = Samples(x, y, rows) if shared else Samples(x[rows], y[rows])
        made.append(Job(task, own, order(client)))
    return made


def both(
    model: FlatModel, training: Training, tasks: Sequence[LocalTask], shared: bool = True
) -> tuple[list[LocalResult], list[LocalResult]]:
    """Results at once, and one by one."""
    trainer = Trainer(model, training)
    together = trainer.train(jobs_for(model, tasks, shared), LR)
    alone = [trainer.train([job], LR)[0] for job in jobs_for(model, tasks, shared)]
    return together, alone


def assert_agree(
    together: Sequence[LocalResult], alone: Sequence[LocalResult], start: np.ndarray
) -> None:
    tolerance = TOLERANCE[torch.from_numpy(start).dtype]
    for one, reference in zip(together, alone, strict=True):
        moved = np.abs(reference.end.parameters - start).max()
        assert moved > 1e-3
        assert one.end.parameters.dtype == start.dtype
        assert np.abs(one.end.parameters - reference.end.parameters).max() <= tolerance * moved
        assert one.steps == reference.steps
        assert one.samples == reference.samples
        assert one.part_steps == reference.part_steps
        assert one.loss == pytest.approx(reference.loss, rel=100 * tolerance)


def starts(model: FlatModel) -> list[ModelVector]:
    """A start of its own for each client."""
    first = model.read()
    return [
        ModelVector(
            (first.parameters * (1 + 0.01 * client)).astype(first.parameters.dtype), first.buffers
        )
        for client in range(len(SIZES))
    ]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_group_agrees_with_its_members(name: str, dtype: torch.dtype) -> None:
    model = network(name, dtype)
    tasks = [LocalTask(start) for start in starts(model)]
    together, alone = both(model, Training(epochs=2, batch_size=8, momentum=0.5), tasks)
    assert_agree(together, alone, tasks[0].start.parameters)
    assert len({result.end.parameters.tobytes() for result in together}) == len(SIZES)


OPTIONS: dict[str, dict[str, Any]] = {
    "clipped and decayed": {"clip_norm": 0.5, "weight_decay": 0.1},
    "steps": {"steps": 5},
    "full batches only": {"epochs": 2, "drop_last": True},
    "augmented": {"epochs": 2, "augment": Augment(crop=2, flip=True, cutout=3)},
    "in bfloat16": {"precision": "bf16"},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shared", [True, False])
def test_it_agrees_with_any_option(name: str, shared: bool) -> None:
    bfloat16 = "precision" in OPTIONS[name]
    model = network("lenet", torch.float32 if bfloat16 else torch.float64)
    tasks = [LocalTask(start) for start in starts(model)]
    together, alone = both(model, Training(batch_size=8, **OPTIONS[name]), tasks, shared)
    if not bfloat16:
        assert_agree(together, alone, tasks[0].start.parameters)
        return
    for one, reference, task in zip(together, alone, tasks, strict=True):
        moved = np.linalg.norm(reference.end.parameters - task.start.parameters)
        apart = np.linalg.norm(one.end.parameters - reference.end.parameters)
        assert 0 < apart < 0.25 * moved


def test_it_agrees_under_norm_sparsity() -> None:
    model = network("resnet20")
    tasks = [LocalTask(start) for start in starts(model)]
    training = Training(batch_size=8, norm_sparsity=0.05)
    together, alone = both(model, training, tasks)
    assert_agree(together, alone, tasks[0].start.parameters)
    plain, _ = both(model, Training(batch_size=8), tasks)
    assert np.abs(plain[0].end.parameters - together[0].end.parameters).max() > 1e-3


@pytest.mark.parametrize("covered", [1.0, 0.5])
def test_each_has_its_own_correction(covered: float) -> None:
    model = network("mlp")
    count = int(covered * len(model.parameters))
    noise = np.random.default_rng(0).normal(0, 0.1, (2, len(SIZES), count))
    tasks = [
        LocalTask(start, offset=offset, mu=0.3, anchor=anchor)
        for start, offset, anchor in zip(starts(model), *noise, strict=True)
    ]
    together, alone = both(model, Training(epochs=2, batch_size=8), tasks)
    assert_agree(together, alone, tasks[0].start.parameters)


def test_parts_train_in_their_phases_only() -> None:
    model = network("lenet")
    phases = (Phase(frozenset({"predictor"}), epochs=2), Phase(frozenset({"encoder"}), steps=3))
    tasks = [LocalTask(start, phases=phases) for start in starts(model)]
    together, alone = both(model, Training(batch_size=8), tasks)
    assert_agree(together, alone, tasks[0].start.parameters)
    assert together[1].part_steps == {"encoder": 3, "predictor": 10}
    # With one phase, what is frozen stays to the bit.
    tasks = [LocalTask(start, phases=phases[:1]) for start in starts(model)]
    for result, task in zip(both(model, Training(batch_size=8), tasks)[0], tasks, strict=True):
        encoder = result.end.parameters[: model.layout.shared.size]
        assert encoder.tobytes() == task.start.parameters[: model.layout.shared.size].tobytes()


def test_one_that_diverges_leaves_the_others_alone() -> None:
    model = network("lenet")
    wild = starts(model)[2]
    wild = ModelVector(np.full_like(wild.parameters, np.nan), wild.buffers)
    tasks = [LocalTask(start) for start in starts(model)]
    training = Training(batch_size=8)
    calm = Trainer(model, training).train(jobs_for(model, tasks), LR)
    tasks[2] = LocalTask(wild)
    found = Trainer(model, training).train(jobs_for(model, tasks), LR)
    for client, (one, reference) in enumerate(zip(found, calm, strict=True)):
        if client != 2:
            assert one.end.parameters.tobytes() == reference.end.parameters.tobytes()
    assert np.isnan(found[2].end.parameters).all()
    assert np.isnan(found[2].loss)


def test_only_tasks_of_one_kind_go_together() -> None:
    model = network("mlp")
    start = model.read()
    n = start.parameters
    (plain, *_) = jobs_for(model, [LocalTask(start)] * 5)

    def kind(**fields: Any) -> Job:
        return Job(LocalTask(start, **fields), plain.samples, plain.batches)

    def own(output: Tensor, labels: Tensor) -> Tensor:
        return output.sum()

    assert go_together([plain, kind()])
    assert go_together([kind(offset=n), kind(offset=2 * n)])
    for other in (
        kind(offset=n),
        kind(mu=0.1, anchor=n),
        kind(phases=(Phase(steps=1),)),
        kind(loss=own),
    ):
        assert not go_together([plain, other])
    assert not go_together([kind(loss=own), kind(loss=own)])


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "batch norm": ("resnet20", {}, r"together must be 1 with a model with buffers .*, got 2"),
    "own loss": ("mlp", {"loss": "m:f"}, "together must be 1 with an own training.loss, got 2"),
    "compile": ("mlp", {"compile": True}, "together must be 1 with training.compile, got 2"),
    "layout": ("lenet", {"channels_last": True}, "must be 1 with training.channels_last, got 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_batched_is_refused(name: str) -> None:
    network_, options, text = REFUSED[name]
    model = flatten(split_model(network_))
    with pytest.raises(ConfigError, match=text):
        check_together(model, Training(together=2, **options), SampleSpec((1, 16, 16), 10))
    check_together(model, Training(**options), SampleSpec((1, 16, 16), 10))


def test_a_network_that_draws_numbers_is_refused() -> None:
    model = flatten(split_model("Dropping"))
    with pytest.raises(ConfigError, match=r"together must be 1 for a model .* got 3: RuntimeError"):
        check_together(model, Training(together=3), SampleSpec((1, 16, 16), 10))


def test_a_recurrent_network_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"together must be 1 for a model .* cannot batch, got 2: "
    ):
        check_together(
            text_model(), Training(together=2), SampleSpec((LENGTH,), CHARACTERS, CHARACTERS)
        )


def test_a_network_that_hides_a_weight_is_refused() -> None:
    """Without the trial, its clients would silently train something else."""
    model = flatten(split_model("Hiding"))
    with pytest.raises(ConfigError, match="gets wrong, got 2 and a relative difference of"):
        check_together(model, Training(together=2), SampleSpec((1, 16, 16), 10))


@pytest.mark.parametrize("name", ["BatchMean", "Untracked"])
def test_a_network_whose_samples_look_at_each_other_is_refused(name: str) -> None:
    """What fills up a shorter batch would change what the others see."""
    model = flatten(split_model(name))
    assert not list(model.module.buffers())
    with pytest.raises(ConfigError, match="gets wrong, got 2 and a relative difference of"):
        check_together(model, Training(together=2), SampleSpec((1, 16, 16), 10))


def test_a_trial_leaves_the_model_as_it_was() -> None:
    model = network("lenet")
    before = model.read()
    check_together(model, Training(together=2), SampleSpec((1, 16, 16), 10))
    assert model.read().parameters.tobytes() == before.parameters.tobytes()
    assert not model.module.training


@pytest.mark.parametrize("precision", ["full", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_can_be_batched_is_taken(name: str, precision: str) -> None:
    training = Training.model_validate({"together": 2, "precision": precision})
    check_together(network(name, torch.float32), training, SampleSpec((1, 16, 16), 10))
