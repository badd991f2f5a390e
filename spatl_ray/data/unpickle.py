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
from typing import Any, ClassVar, Literal

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
    """Stands in for numpy.ndarray and its maker: shape, type and bytes that fit each other."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.dtype: np.dtype[Any] = np.dtype("u1")
        self.order: Literal["C", "F"] = "C"
        self.content: bytes | str = b""

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple() as shape, _Type() as kind, int(columns), bytes() | str() as raw):
                self.shape, self.content = shape, raw
                self.dtype, self.order = np.dtype(kind.order + kind.code), "F" if columns else "C"
            case _:
                raise pickle.UnpicklingError("an array's state has another form")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise pickle.UnpicklingError("an array must have a shape of integers from 0")
        if math.prod(shape) * self.dtype.itemsize != len(raw):
            raise pickle.UnpicklingError(f"an array of shape {shape} has {len(raw)} bytes")

    def filled(self) -> npt.NDArray[Any]:
        """The array of these bytes (text, if Python 2 wrote them)."""
        raw = self.content.encode("latin1") if isinstance(self.content, str) else self.content
        array = np.frombuffer(raw, self.dtype).astype(self.dtype.newbyteorder("="))
        return array.reshape(self.shape, order=self.order)


ALLOWED: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,  # The name before NumPy 2.
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}
"""All that a pickle may name; its containers, numbers and texts need no name.

Classes only, never a function: a pickle could set a function's attributes.
"""


def _refuse(_: Any) -> None:
    raise pickle.UnpicklingError("it holds a set or a bytearray, which is not allowed")


def _with_plain_keys(code: bytes, keys: slice) -> Callable[[Any], None]:
    """The standard handler of an opcode that fills a dictionary, after a check of the keys.

    The hash of tuples in tuples would overflow the stack, or take 2^depth steps.
    """

    def handler(unpickler: Any) -> None:
        if not all(isinstance(key, str | bytes | int | float) for key in unpickler.stack[keys]):
            raise pickle.UnpicklingError("a key must be a text or a number")
        HANDLERS[code[0]](unpickler)

    return handler


HANDLERS = pickle._Unpickler.dispatch


# The one in Python: the fast one lets a few bytes of a file reserve any amount of memory.
class _Restricted(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **HANDLERS,
        pickle.SETITEM[0]: _with_plain_keys(pickle.SETITEM, slice(-2, -1)),
        pickle.SETITEMS[0]: _with_plain_keys(pickle.SETITEMS, slice(None, None, 2)),
        pickle.DICT[0]: _with_plain_keys(pickle.DICT, slice(None, None, 2)),
        # Sets hash as well; a bytearray fills memory before it is read.
        pickle.ADDITEMS[0]: _refuse,
        pickle.FROZENSET[0]: _refuse,
        pickle.BYTEARRAY8[0]: _refuse,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {f'{module}.{name}'!r}, which is not allowed")
        return ALLOWED[module, name]


def unpickle(content: bytes, origin: object) -> Any:
    """What a pickle holds: containers, numbers and texts, and arrays on top or in a dictionary.

    Args:
        content: the pickle; bytes that Python 2 wrote as `str` become text by Latin-1.
        origin: the file that it came from, for the error.

    Raises:
        DataError: it is damaged, names a class or function other than an array's, or holds sets,
            bytearrays, keys other than texts and numbers, or arrays larger than itself.
    """
    try:
        found = _Restricted(io.BytesIO(content), encoding="latin1").load()
        arrays = _arrays(found, len(content))
    # A damaged pickle can raise nearly anything, as the documentation of pickle warns.
    except Exception as error:
        raise DataError(
            f"{origin}: must be a pickle of plain values and arrays, "
            f"got {type(error).__name__}: {error}"
        ) from error
    if isinstance(found, dict):
        return {key: arrays.get(id(value), value) for key, value in found.items()}
    return arrays.get(id(found), found)


def _arrays(found: object, limit: int) -> dict[int, npt.NDArray[Any]]:
    """The array in place of each stand-in, by its id; `limit` bytes in all."""
    values = found.values() if isinstance(found, dict) else [found]
    stand_ins = {id(value): value for value in values if isinstance(value, _Array)}
    # Many arrays may name the same few bytes.
    size = sum(len(each.content) for each in stand_ins.values())
    if size > limit:
        raise pickle.UnpicklingError(f"its arrays hold {size} bytes, the file has {limit}")
    return {key: each.filled() for key, each in stand_ins.items()}
