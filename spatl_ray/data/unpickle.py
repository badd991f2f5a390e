"""Pickles of plain values and NumPy arrays, read without running what a file may ask for."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from spatl_ray.errors import DataError

RECONSTRUCT: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
"""NumPy's function that makes an empty array, to be filled from the pickle."""

ALLOWED: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,  # The name before NumPy 2.
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""All that a pickle may name; its containers, numbers and texts need no name."""


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed")
        return ALLOWED[module, name]


def unpickle(content: bytes, origin: object) -> Any:
    """What a pickle holds: containers, numbers, texts and NumPy arrays, nothing else.

    Args:
        content: the pickle; bytes that Python 2 wrote as `str` become text by Latin-1.
        origin: the file that it came from, for the error.

    Raises:
        DataError: it is damaged, or names a class or function other than an array's.
    """
    try:
        return _Restricted(io.BytesIO(content), encoding="latin1").load()
    # A damaged pickle can raise nearly anything, as the documentation of pickle warns.
    except Exception as error:
        raise DataError(
            f"{origin}: must be a pickle of plain values and arrays, "
            f"got {type(error).__name__}: {error}"
        ) from error
