"""Own losses: used by local training, and refused before any client trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from flat_models import LR, digits, flatten, order, split_model
from torch import Tensor
from torch.nn import functional

from spatl_ray.config import Training
from spatl_ray.errors import ConfigError
from spatl_ray.training.evaluate import evaluate
from spatl_ray.training.local import LocalResult, LocalTask, Trainer
from spatl_ray.training.loss import load_loss, make_loss


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def smoothed(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy with smoothed labels."""
    return functional.cross_entropy(outputs, labels, label_smoothing=0.1)


def a_value_a_sample(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, labels, reduction="none")


def a_number(outputs: Tensor, labels: Tensor) -> float:
    return smoothed(outputs, labels).item()


def an_integer(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(dim=1) == labels).sum()


def errors_made(outputs: Tensor, labels: Tensor) -> Tensor:
    """The zero-one loss, which has no gradient."""
    return (outputs.argmax(dim=1) != labels).double().mean()


def without_outputs(outputs: Tensor, labels: Tensor) -> Tensor:
    """A loss that depends on something else."""
    return torch.ones((), requires_grad=True) * labels.sum()


def of_sequences(outputs: Tensor, labels: Tensor) -> Tensor:
    """For outputs of shape (n, length, classes)."""
    return functional.cross_entropy(outputs[:, -1, :], labels)


def trained(loss: str = "cross_entropy", task_loss: object = None) -> LocalResult:
    model = flatten(split_model("mlp", dtype=torch.float64))
    training = Training(steps=3, batch_size=8, dtype="float64", loss=loss)
    task = LocalTask(model.read(), loss=task_loss)  # type: ignore[arg-type]
    return Trainer(model, training).run(task, *digits(20, torch.float64), LR, order())


def same(first: LocalResult, second: LocalResult) -> bool:
    return first.loss == second.loss and np.array_equal(first.end.parameters, second.end.parameters)


def test_the_config_names_the_loss() -> None:
    assert same(trained("test_loss:smoothed"), trained(task_loss=smoothed))
    assert same(trained(), trained(task_loss=functional.cross_entropy))
    assert not same(trained("test_loss:smoothed"), trained())


def test_a_task_with_a_loss_of_its_own_keeps_it() -> None:
    assert same(trained("test_loss:smoothed", functional.cross_entropy), trained())


def test_a_function_of_torch_is_a_loss() -> None:
    name = "torch.nn.functional:multi_margin_loss"
    make_loss(Training(loss=name), 10)
    assert same(trained(name), trained(task_loss=functional.multi_margin_loss))


def test_evaluation_is_in_cross_entropy_whatever_was_trained() -> None:
    model = flatten(split_model("mlp", dtype=torch.float64))
    x, y = digits(20, torch.float64)
    end = trained("test_loss:smoothed").end
    score = evaluate(model, end, x, y, 7)
    model.load(end)
    model.evaluate()
    assert score is not None
    expected = functional.cross_entropy(model.module(x), y).item()
    assert score.loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "test_loss:smoothed"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 62])
def test_what_fits_is_accepted(name: str, dtype: str, classes: int) -> None:
    training = Training.model_validate({"loss": name, "dtype": dtype})
    assert make_loss(training, classes) is load_loss(name)


@pytest.mark.parametrize("missing", ["test_loss:smothed", "test_lass:smoothed"])
def test_a_loss_that_does_not_exist(missing: str) -> None:
    text = rf"^training.loss must name something that can be imported .* got '{missing}'"
    with pytest.raises(ConfigError, match=text):
        load_loss(missing)
    with pytest.raises(ConfigError, match=text):
        trained(missing)


def test_a_loss_that_is_no_function() -> None:
    with pytest.raises(ConfigError, match=r"^training.loss must name a class or a function, got"):
        load_loss("test_loss:__doc__")


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("a_value_a_sample", r"torch.float32 of shape \(2,\)"),
        ("a_number", "a float"),
        ("an_integer", r"torch.int64 of shape \(\)"),
    ],
)
def test_a_result_that_is_no_scalar(name: str, got: str) -> None:
    text = rf"must return a floating-point tensor of shape \(\), got {got} from 'test_loss:{name}'$"
    with pytest.raises(ConfigError, match=f"^training.loss {text}"):
        make_loss(Training(loss=f"test_loss:{name}"), 4)


def test_a_class_instead_of_a_function() -> None:
    """Its instance would be called, not the class with outputs and labels."""
    with pytest.raises(ConfigError, match=r"^training.loss must .* 'torch.nn:CrossEntropyLoss'"):
        make_loss(Training(loss="torch.nn:CrossEntropyLoss"), 4)


@pytest.mark.parametrize("name", ["errors_made", "without_outputs"])
def test_a_result_without_a_gradient(name: str) -> None:
    text = rf"^training.loss must be differentiable by the outputs, .* from 'test_loss:{name}'$"
    with pytest.raises(ConfigError, match=text):
        make_loss(Training(loss=f"test_loss:{name}"), 4)


def test_a_loss_that_fails() -> None:
    text = r"got 'test_loss:of_sequences', which failed on outputs of shape \(2, 4\): \w+Error: "
    with pytest.raises(ConfigError, match=f"^training.loss must be a function of .* {text}"):
        make_loss(Training(loss="test_loss:of_sequences"), 4)
