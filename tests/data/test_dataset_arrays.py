"""Data sets of a user's own arrays: common types are cast, everything else is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import spatl_ray
from spatl_ray.data.datasets import Dataset
from spatl_ray.errors import DataError

X, Y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])


def made(**changes: Any) -> Dataset:
    arrays = {"train_x": X, "train_y": Y, "test_x": X[:3], "test_y": Y[:3]}
    return Dataset.from_arrays("own", **(arrays | changes))


@given(
    x_type=st.sampled_from(["f2", "f4", "f8", "u1", "i2", "i8"]),
    y_type=st.sampled_from(["u1", "i1", "i4", "i8", "u8"]),
)
def test_any_common_type_gives_the_same_data_set(x_type: str, y_type: str) -> None:
    cast = made(
        train_x=X.astype(x_type), train_y=Y.astype(y_type), test_x=X[:3], groups=Y.astype(y_type)
    )
    assert cast.train_x.dtype == np.float32
    assert cast.train_y.dtype == np.int64
    assert cast.classes == 3
    assert cast.fingerprint == made(groups=Y).fingerprint


def test_it_is_what_the_constructor_makes_of_cast_arrays() -> None:
    x, y = X.astype(np.float32), Y.astype(np.int64)
    plain = spatl_ray.Dataset("own", x, y, x[:3], y[:3], classes=3)
    assert made().fingerprint == plain.fingerprint
    assert made(train_x=X.tolist(), train_y=Y.tolist()).fingerprint == plain.fingerprint
    assert made(train_x=torch.tensor(X), train_y=torch.tensor(Y)).fingerprint == plain.fingerprint


def test_classes_are_inferred_from_both_parts_or_given() -> None:
    assert made(test_y=np.array([0, 1, 5])).classes == 6
    assert made(classes=10).classes == 10
    with pytest.raises(DataError, match=r"'own': train_y must be in \[0, 2\), got 2"):
        made(classes=2)


def test_tokens_stay_integers() -> None:
    tokens = np.array([[0, 3], [1, 2]], np.int16)
    own = Dataset.from_arrays("own", tokens, [0, 1], tokens, [0, 1], vocabulary=4)
    assert own.train_x.dtype == np.int64
    assert own.spec.vocabulary == 4
    with pytest.raises(DataError, match="'own': train_x must hold integers, got float64"):
        made(vocabulary=100)
    larger = Dataset.from_arrays("own", tokens, [0, 1], tokens, [0, 1], vocabulary=5)
    assert larger.fingerprint != own.fingerprint  # another model is trained


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"train_y": Y * 1.0}, "train_y must hold integers, got float64"),
        (
            {"train_y": Y.astype("u8") + 2**63},
            "train_y must be below 2\\^63, got 9223372036854775810",
        ),
        (
            {"groups": Y.astype("u8") + 2**63},
            "groups must be below 2\\^63, got 9223372036854775810",
        ),
        ({"classes": "3"}, "classes must be a positive integer, got '3'"),
        ({"classes": 3.5}, "classes must be a positive integer, got 3.5"),
        ({"classes": True}, "classes must be a positive integer, got True"),
        ({"classes": 0}, "classes must be a positive integer, got 0"),
        (
            {"train_x": Y, "test_x": Y[:3], "vocabulary": 2.5},
            "vocabulary must be a positive integer",
        ),
        ({"train_y": Y > 1}, "train_y must hold integers, got bool"),
        ({"groups": list("aabbcc")}, "groups must hold integers, got <U1"),
        ({"test_x": X[:3] * 1j}, "test_x must hold real numbers, got complex128"),
        ({"train_x": np.array([{}] * 6)}, "train_x must hold real numbers, got object"),
        ({"train_x": X * 1e300}, "train_x must be finite"),
        ({"train_y": -Y}, r"train_y must be in \[0, 3\), got -2"),
        ({"train_y": Y[:0]}, r"train_y must have shape \(6,\)"),
        ({"train_x": X[:0], "train_y": Y[:0]}, "train_x must have shape .* without a 0"),
        ({"train_y": Y * 2**40}, r"train_y must be in \[0, 1000000\), got 2199023255552"),
        ({"test_y": Y[:3] + 10**6}, r"test_y must be in \[0, 1000000\), got 1000000"),
        ({"classes": 10**6 + 1}, "classes must be at most 1000000, got 1000001"),
    ],
)
def test_arrays_that_break_a_rule_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(DataError, match=f"data set 'own': {rule}"):
        made(**changes)


def test_a_million_classes_are_allowed() -> None:
    assert made(train_y=Y + 10**6 - 3).classes == made(classes=10**6).classes == 10**6


@pytest.mark.parametrize("name", [None, 3, b"own"])
def test_a_name_that_is_no_text_is_refused_at_once(name: Any) -> None:
    """Before any other fault."""
    x, y = X.astype(np.float32), Y.astype(np.int64)
    with pytest.raises(DataError, match=f"^name must be a text, .*, got {name!r}$"):
        Dataset.from_arrays(name, "no", "array", "at", "all")
    with pytest.raises(DataError, match=f"^name must be a text, .*, got {name!r}$"):
        Dataset(name, x, y, x, y, classes=3)


@pytest.mark.parametrize("field", ["train_x", "train_y", "test_x", "test_y", "groups"])
def test_a_masked_array_is_refused_where_nothing_is_cast(field: str) -> None:
    """Whether masked or not, its values would be trained on."""
    arrays = {"train_x": np.ones((2, 1), np.float32), "train_y": np.zeros(2, np.int64)}
    arrays |= {"test_x": arrays["train_x"], "test_y": arrays["train_y"], "groups": np.arange(2)}
    arrays[field] = np.ma.masked_array(arrays[field], np.arange(2).reshape(arrays[field].shape))
    rule = f"'own': {field} must be a NumPy array of .* without a mask, got a masked one"
    with pytest.raises(DataError, match=rule):
        Dataset("own", **arrays, classes=1)


@pytest.mark.parametrize(
    ("train_x", "rule"),
    [
        ([[1.0], [2.0, 3.0]], "train_x must be an array, got one of unequal rows"),
        (np.ma.masked_array([[1.0], [2.0]], [[False], [True]]), "train_x must hold a value every"),
        (np.zeros((2, 0)), r"train_x must have shape \(n, \*shape\) without a 0, got \(2, 0\)"),
    ],
)
def test_arrays_with_holes_are_refused(train_x: Any, rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        Dataset.from_arrays("some", train_x, [0, 1], [[1.0]], [0])
