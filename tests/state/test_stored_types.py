"""States stored in fewer bits: rounded once, to the type that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_states import INITIAL, state, value_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spatl_ray.errors import StateError
from spatl_ray.state.form import Form
from spatl_ray.state.store import StateStore
from spatl_ray.update import VALUE_TYPES

LIKE = {"x": np.zeros(4, dtype=np.float32), "n": np.zeros(2, dtype=np.int64)}


@given(
    st.sampled_from(["float16", "bfloat16", "float32"]),
    arrays(np.float32, 4, elements=st.floats(-6e4, 6e4, width=32)),
)
def test_values_are_rounded_once(values: Any, x: np.ndarray) -> None:
    form = Form(LIKE, values)
    packed = form.pack({"x": x, "n": np.array([2**60 + 1, -7])}, "it")
    assert len(packed) == form.size == 4 * VALUE_TYPES[values].itemsize + 16
    found = form.arrays(memoryview(packed))
    assert np.array_equal(found["x"], x.astype(VALUE_TYPES[values]).astype(np.float32))
    assert found["x"].dtype == np.float32
    assert found["n"].tolist() == [2**60 + 1, -7]
    assert form.pack(found, "it") == packed
    with pytest.raises(ValueError, match="read-only"):
        found["x"][0] = 1


@pytest.mark.parametrize("cached", [0, 2**20])
def test_the_store_gives_what_it_stored(tmp_path: Path, cached: int) -> None:
    """From memory and from the file alike."""
    store = StateStore(tmp_path, LIKE, cached, "bfloat16")
    value = {"x": np.float32([1, 1 / 3, -70000, 0]), "n": np.array([1, 2])}
    store.write(0, 0, value, -1)
    rounded = value["x"].astype(VALUE_TYPES["bfloat16"]).astype(np.float32)
    assert np.array_equal(store.read(0, 0)["x"], rounded)
    assert not np.array_equal(rounded, value["x"])


def test_a_value_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    store = StateStore(tmp_path, LIKE, 0, "float16")
    message = r"^x of the state of client 3 must fit wire.states float16, got a value of 70000$"
    with pytest.raises(StateError, match=message):
        store.write(3, 0, {**LIKE, "x": np.float32([1, 0, -70000, 0])}, -1)
    assert list(tmp_path.iterdir()) == []


def test_records_of_another_type_are_refused(tmp_path: Path) -> None:
    StateStore(tmp_path, INITIAL).write(0, 0, state(1), -1)
    with pytest.raises(StateError):
        StateStore(tmp_path, INITIAL, 0, "float16").read(0, 0)
    assert value_of(StateStore(tmp_path, INITIAL).read(0, 0)) == 1
