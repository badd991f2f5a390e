"""Pickles of plain values and NumPy arrays, read without running what a file may ask for.

NumPy's own classes are not handed out: a type's state in a pickle sets flags that make raw bytes
count as pointers. What stands in for them takes numbers only.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from spatl_ray.errors import DataError

NUMBER = re.compile(r"[uif][1248]")
"""NumPy's codes of the types that an array may have."""


class _Type:
    """Stands in for numpy.dtype: a number's code and its byte order."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not NUMBER.fullmatch(code):
            raise pickle.UnpicklingError("an array's type must be one of numbers")
        self.code = code
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("|", "<", ">"):
            raise pickle.UnpicklingError("an array's type has no byte order")
        self.order = state[1]


class _Array:
    """Stands in for numpy.ndarray: filled from shape, type and bytes that fit each other."""

    value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple() as shape, _Type() as kind, bool() | int() as columns, raw):
                self.value = _filled(shape, kind, bool(columns), raw)
            case _:
                raise pickle.UnpicklingError("an array's state has another form")


def _filled(shape: tuple[Any, ...], kind: _Type, columns: bool, raw: object) -> npt.NDArray[Any]:
    """The array of these bytes (text, if Python 2 wrote them)."""
    content = raw.encode("latin1") if isinstance(raw, str) else raw
    dtype = np.dtype(kind.order + kind.code)
    if not all(type(side) is int and side >= 0 for side in shape) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("an array must have a shape of integers, and bytes")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise pickle.UnpicklingError(f"an array of shape {shape} has {len(content)} bytes")
    array = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))
    return array.reshape(shape, order="F") if columns else array.reshape(shape)


def _reconstruct(*_: object) -> _Array:
    """Stands in for NumPy's function that makes an empty array, to be filled from the pickle."""
    return _Array()


ALLOWED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # The name before NumPy 2.
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}
"""All that a pickle may name; its containers, numbers and texts need no name."""


# The one in Python: the fast one lets a few bytes of a file reserve any amount of memory.
class _Restricted(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed")
        return ALLOWED[module, name]


def unpickle(content: bytes, origin: object) -> Any:
    """What a pickle holds: containers, numbers and texts, and arrays on top or in a dictionary.

    Args:
        content: the pickle; bytes that Python 2 wrote as `str` become text by Latin-1.
        origin: the file that it came from, for the error.

    Raises:
        DataError: it is damaged, or names a class or function other than an array's.
    """
    try:
        found = _Restricted(io.BytesIO(content), encoding="latin1").load()
    # A damaged pickle can raise nearly anything, as the documentation of pickle warns.
    except Exception as error:
        raise DataError(
            f"{origin}: must be a pickle of plain values and arrays, "
            f"got {type(error).__name__}: {error}"
        ) from error
    if isinstance(found, dict):
        return {key: _plain(value) for key, value in found.items()}
    return _plain(found)


def _plain(value: Any) -> Any:
    """The array that stands in a value's place."""
    return value.value if isinstance(value, _Array) else value
