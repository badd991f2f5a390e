"""Client states that a single number tells apart."""

from __future__ import annotations

import numpy as np

from spatl_ray.update import ClientState

INITIAL: ClientState = {
    "variate": np.full(5, 0.5),
    "bits": np.zeros(3, dtype=np.uint8),
    "matrix": np.full((2, 2), -1.0, dtype=np.float32),
    "scalar": np.array(7.0, dtype=np.float32),
    "none": np.zeros((0, 4), dtype=np.float32),
}


def state(value: float) -> ClientState:
    """A state of the right form that `value` tells from all others."""
    return {name: np.full_like(array, value) for name, array in INITIAL.items()}


def value_of(found: ClientState) -> float:
    """What `state` was called with; all arrays agree."""
    assert {n: (a.dtype, a.shape) for n, a in found.items()} == {
        n: (a.dtype, a.shape) for n, a in INITIAL.items()
    }
    (value,) = {float(v) for a in found.values() for v in a.ravel()}
    return value


def is_initial(found: ClientState) -> bool:
    return all(
        np.array_equal(found[n], a) and found[n].dtype == a.dtype for n, a in INITIAL.items()
    )
