"""The training loop equals ordinary SGD, and its corrections have closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flat_models import LR, digits, flatten, order, split_model, train
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spatl_ray import seeding
from spatl_ray.config import Training
from spatl_ray.errors import ConfigError
from spatl_ray.models.flat import FlatModel
from spatl_ray.parameters import ModelVector
from spatl_ray.training.evaluate import evaluate
from spatl_ray.training.local import LocalTask, Trainer
from spatl_ray.training.schedule import normaliser


def without_gradient(output: Tensor, labels: Tensor) -> Tensor:
    """A loss that is 0 everywhere, so that only corrections move the model."""
    return 0 * output.sum()


# --- ordinary SGD ---------------------------------------------------------------------------------


def ordinary_sgd(name: str, dtype: torch.dtype, epochs: int, **sgd: float) -> dict[str, Tensor]:
    """The state after a plain torch training loop on the same batches."""
    module = split_model(name, dtype=dtype).module.train()
    optimiser = torch.optim.SGD(module.parameters(), LR, foreach=False, **sgd)
    x, y = digits(20, dtype)
    draw = order()
    for _ in range(epochs):
        rows = torch.from_numpy(draw.permutation(20))
        for batch in rows.split(8):
            optimiser.zero_grad()
            functional.cross_entropy(module(x[batch]), y[batch]).backward()
            optimiser.step()
    return module.state_dict()


@pytest.mark.parametrize("name", ["lenet", "resnet20", "mlp", "Replacing"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sgd", [{}, {"momentum": 0.9, "weight_decay": 0.01}])
def test_it_is_ordinary_sgd_bit_for_bit(
    name: str, dtype: torch.dtype, sgd: dict[str, float]
) -> None:
    expected = ordinary_sgd(name, dtype, 2, **sgd)
    model = flatten(split_model(name, dtype=dtype))
    end = train(model, LocalTask(model.read()), epochs=2, **{"momentum": 0.0, **sgd}).end
    got = {
        **model.layout.parameters.views(end.parameters),
        **model.layout.buffers.views(end.buffers),
    }
    assert all(np.array_equal(values, expected[key].numpy()) for key, values in got.items())


def test_modes_that_a_client_left_behind_do_not_last() -> None:
    model = flatten(split_model("Switching"))
    (x, y), task = digits(20), LocalTask(model.read())
    trainer = Trainer(model, Training(batch_size=8))
    ends = []
    for samples in (20, 1, 20):
        with seeding.torch_seeded(0, "test"):
            ends.append(trainer.run(task, x[:samples], y[:samples], LR, order()).end.parameters)
    assert ends[0].tobytes() == ends[2].tobytes()


def test_the_same_task_gives_the_same_bits_after_anything_else() -> None:
    model = flatten(split_model("resnet20", width=4))
    task = LocalTask(model.read())
    trainer = Trainer(model, Training(steps=4, batch_size=8))
    x, y = digits(20)
    first = trainer.run(task, x, y, LR, order())
    trainer.run(LocalTask(first.end), x, y, LR, order(1))
    evaluate(model, first.end, x, y, 2)
    again = trainer.run(task, x, y, LR, order())
    assert np.array_equal(again.end.parameters, first.end.parameters)
    assert np.array_equal(again.end.buffers, first.end.buffers)
    assert again.loss == first.loss


def test_training_after_an_evaluation_is_in_training_mode() -> None:
    model = flatten(split_model("resnet20", width=4))
    x, y = digits(5)
    evaluate(model, model.read(), x, y, 5)
    assert not model.module.training
    start = model.read()
    end = train(model, LocalTask(start), steps=1).end
    assert all(module.training for module in model.module.modules())
    assert not np.array_equal(end.buffers, start.buffers)


def test_the_loss_is_the_mean_over_the_samples_before_each_step() -> None:
    model = flatten(split_model("mlp", dtype=torch.float64, hidden=[]))
    start = model.read()
    model.load(ModelVector(start.parameters * 0, start.buffers))
    # At 0 all logits are equal, and a step with a learning rate of almost 0 leaves them so.
    x, y = digits(20, torch.float64)
    trainer = Trainer(model, Training(batch_size=8, momentum=0.0))
    result = trainer.run(LocalTask(model.read()), x, y, 1e-12, order())
    assert result.loss == pytest.approx(np.log(10), abs=1e-9)


# --- a step by hand -------------------------------------------------------------------------------


class Softmax:
    """Softmax regression with the order of a step written out in NumPy."""

    def __init__(self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        self.w, self.x, self.y = parameters.copy(), x, y
        self.anchor = parameters.copy()
        self.velocity = np.zeros_like(parameters)

    def gradient(self, rows: np.ndarray) -> np.ndarray:
        """(softmax - one hot)^T (x, 1) / n."""
        x = np.concatenate([self.x[rows], np.ones((len(rows), 1))], axis=1)
        wide = np.concatenate([self.w[:640].reshape(10, 64), self.w[640:, None]], axis=1)
        logits = x @ wide.T
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(rows)), self.y[rows]] -= 1
        g = p.T @ x / len(rows)
        return np.concatenate([g[:, :64].ravel(), g[:, 64]])

    def step(
        self, rows: np.ndarray, clip: float, decay: float, offset: np.ndarray, mu: float, rho: float
    ) -> None:
        g = self.gradient(rows)
        g *= min(1.0, clip / np.linalg.norm(g))
        g = g + decay * self.w
        g = g + offset + mu * (self.w - self.anchor)
        self.velocity = rho * self.velocity + g
        self.w = self.w - LR * self.velocity


@given(
    clip=st.sampled_from([0.01, 0.3, 100.0]),
    decay=st.sampled_from([0.0, 0.1]),
    mu=st.sampled_from([0.0, 0.5]),
    rho=st.sampled_from([0.0, 0.9]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=30)
def test_a_step_is_gradient_clipping_weight_decay_correction_momentum(
    clip: float, decay: float, mu: float, rho: float, seed: int
) -> None:
    model = flatten(split_model("mlp", (1, 8, 8), dtype=torch.float64, hidden=[]), (1, 8, 8))
    x, y = digits(12, torch.float64, side=8)
    draw = np.random.default_rng(seed)
    start = ModelVector(draw.normal(0, 0.5, 650), np.zeros(0))
    offset = draw.normal(0, 0.2, 650)
    training = Training(
        steps=4, batch_size=5, momentum=rho, weight_decay=decay, clip_norm=clip, dtype="float64"
    )
    task = LocalTask(start, offset=offset, mu=mu, anchor=start.parameters)
    result = Trainer(model, training).run(task, x, y, LR, order(seed))
    by_hand = Softmax(start.parameters, x.flatten(1).numpy(), y.numpy())
    rows = order(seed)
    batches = [b for _ in range(2) for b in np.split(rows.permutation(12), [5, 10])]
    for batch in batches[:4]:
        by_hand.step(batch, clip, decay, offset, mu, rho)
    assert np.allclose(result.end.parameters, by_hand.w, rtol=0, atol=1e-12)


# --- corrections ----------------------------------------------------------------------------------


@given(st.integers(1, 30), st.sampled_from([0.0, 0.5, 0.9]))
@settings(deadline=None, max_examples=30)
def test_a_constant_correction_moves_what_it_covers_by_lr_times_the_normaliser(
    steps: int, rho: float
) -> None:
    model = flatten(split_model("mlp", dtype=torch.float64, hidden=[3]))
    start = model.read()
    shared = model.layout.shared.size
    offset = np.random.default_rng(steps).normal(size=shared)
    task = LocalTask(start, offset=offset, loss=without_gradient)
    moved = train(model, task, steps=steps, momentum=rho).end.parameters - start.parameters
    assert np.allclose(moved[:shared], -LR * normaliser(steps, rho) * offset, atol=1e-12)
    assert not moved[shared:].any()


@given(st.integers(1, 20), st.floats(0.01, 5))
@settings(deadline=None, max_examples=30)
def test_the_proximal_term_contracts_to_its_anchor(steps: int, mu: float) -> None:
    model = flatten(split_model("mlp", dtype=torch.float64, hidden=[3]))
    start = model.read()
    anchor = np.random.default_rng(steps).normal(size=model.layout.shared.size)
    task = LocalTask(start, mu=mu, anchor=anchor, loss=without_gradient)
    end = train(model, task, steps=steps, momentum=0.0).end.parameters
    n = len(anchor)
    closed = anchor + (1 - LR * mu) ** steps * (start.parameters[:n] - anchor)
    assert np.allclose(end[:n], closed, rtol=1e-10, atol=1e-12)
    assert np.array_equal(end[n:], start.parameters[n:])


def test_corrections_of_0_change_no_bit() -> None:
    model = flatten(split_model("lenet"))
    start = model.read()
    plain = train(model, LocalTask(start), steps=5).end.parameters
    zero = np.zeros(model.layout.shared.size, dtype=np.float32)
    corrected = LocalTask(start, offset=zero, mu=0.0, anchor=zero)
    assert np.array_equal(train(model, corrected, steps=5).end.parameters, plain)


def test_a_proximal_term_needs_a_centre() -> None:
    model = flatten(split_model("mlp"))
    with pytest.raises(ConfigError, match=r"needs an anchor, got mu=0.1 without one"):
        LocalTask(model.read(), mu=0.1)


# --- sparse scales --------------------------------------------------------------------------------


def scales(model: FlatModel) -> NDArray[np.bool_]:
    """Where the factors of batch norms behind convolutions are."""
    found = np.zeros(model.layout.parameters.size, dtype=np.bool_)
    for name, module in model.module.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            (own,) = (s for s in model.layout.parameters.segments if s.name == f"{name}.weight")
            found[own.span] = True
    return found


def test_norm_sparsity_moves_each_scale_to_0_by_the_rate_times_its_weight_a_step() -> None:
    model = flatten(split_model("resnet20", dtype=torch.float64, width=4))
    where, start = scales(model), model.read()
    draw = np.random.default_rng(0)
    values = np.where(where, draw.choice([-1, 1], len(where)) * 0.5, start.parameters)
    task = LocalTask(ModelVector(values, start.buffers), loss=without_gradient)
    end = train(model, task, steps=3, momentum=0.0, norm_sparsity=0.25).end.parameters
    assert np.allclose(end[where], values[where] * (1 - 3 * LR * 0.25 / 0.5), rtol=0, atol=1e-15)
    assert np.array_equal(end[~where], values[~where])


def test_norm_sparsity_is_the_l1_norm_of_the_scales_in_the_loss() -> None:
    model = flatten(split_model("resnet20", dtype=torch.float64, width=4))
    start = model.read()

    def penalised(output: Tensor, labels: Tensor) -> Tensor:
        norms = [m for m in model.module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        return functional.cross_entropy(output, labels) + 0.01 * sum(
            m.weight.abs().sum() for m in norms
        )

    expected = train(model, LocalTask(start, loss=penalised), steps=4).end.parameters
    got = train(model, LocalTask(start), steps=4, norm_sparsity=0.01).end.parameters
    plain = train(model, LocalTask(start), steps=4).end.parameters
    assert np.allclose(got, expected, rtol=0, atol=1e-12)
    assert not np.allclose(got, plain, rtol=0, atol=1e-6)


def test_norm_sparsity_needs_a_norm_behind_a_prunable_layer() -> None:
    with pytest.raises(
        ConfigError, match=r"norm_sparsity must be 0 for a model without .*, got 0.1"
    ):
        Trainer(flatten(split_model("lenet")), Training(norm_sparsity=0.1))
