"""How the arrays of a client's state become bytes, and arrays again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spatl_ray.errors import StateError
from spatl_ray.parameters import Array
from spatl_ray.update import VALUE_TYPES, ClientState


class Form:
    """Names, shapes and dtypes of a state, and the type in which its floating-point values are stored.

    Args:
        initial: a state of this form.
        values: `float16`, `bfloat16` or another value type, to which floating-point arrays are rounded;
            None stores them as they are.
    """

    def __init__(self, initial: ClientState, values: str | None = None) -> None:
        self._of = {name: (initial[name].dtype, initial[name].shape) for name in sorted(initial)}
        self._values = values
        stored = None if values is None else VALUE_TYPES[values]
        self._stored = {
            name: stored if stored is not None and dtype.kind == "f" else dtype
            for name, (dtype, _) in self._of.items()
        }
        counts = {name: int(np.prod(shape)) for name, (_, shape) in self._of.items()}
        self._bytes = {name: counts[name] * self._stored[name].itemsize for name in self._of}
        self.size = sum(self._bytes.values())

    def __str__(self) -> str:
        stored = [(name, str(self._stored[name]), shape) for name, (_, shape) in self._of.items()]
        return repr(stored)

    def pack(self, state: Mapping[str, np.ndarray], whose: str) -> bytes:
        """The arrays' bytes, `size` of them.

        Args:
            state: the arrays.
            whose: named in errors.

        Raises:
            StateError: another form, or a value that is finite and its stored type's is not.
        """
        described = {n: (str(a.dtype), a.shape) for n, a in state.items()}
        expected = {n: (str(dtype), shape) for n, (dtype, shape) in self._of.items()}
        if described != expected:
            raise StateError(f"{whose} must be {expected}, got {described}")
        return b"".join(self._rounded(state[name], name, whose).tobytes() for name in self._of)

    def arrays(self, data: memoryview) -> ClientState:
        """The arrays again, read-only.

        Args:
            data: what `pack` gave.
        """
        state, start = {}, 0
        for name, (dtype, shape) in self._of.items():
            part = data[start : (start := start + self._bytes[name])]
            values = np.frombuffer(part, self._stored[name]).astype(dtype, copy=False)
            values.setflags(write=False)
            state[name] = values.reshape(shape)
        return state

    def _rounded(self, array: Array, name: str, whose: str) -> Array:
        """In the stored type, contiguous."""
        stored = self._stored[name]
        if stored == array.dtype:
            return np.ascontiguousarray(array)
        with np.errstate(over="ignore"):
            rounded = array.astype(stored)
        if np.isfinite(array).all() and not np.isfinite(rounded).all():
            largest = np.abs(array).max()
            raise StateError(
                f"{name} of {whose} must fit wire.states {self._values}, got a value of {largest:g}"
            )
        return rounded


def frozen(array: Array) -> Array:
    """A read-only copy, so that no client can change what all clients start from."""
    copy = array.copy()
    copy.setflags(write=False)
    return copy
