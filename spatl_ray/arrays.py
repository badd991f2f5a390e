"""What arrays hold: the names of their types, for the whole package."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bits = npt.NDArray[np.bool_]

Features = Floats | Integers
"""Of samples: real numbers, or token ids."""

AnyArray = TypeVar("AnyArray", bound=npt.NDArray[np.generic])


def readonly(array: AnyArray) -> AnyArray:
    """A view through which nothing can be written, even if its flags are set.

    NumPy lets a view of writable memory become writable again; one of a read-only buffer does not.
    """
    return np.asarray(memoryview(array).toreadonly())  # type: ignore[arg-type, return-value]


def l2_norm(values: npt.NDArray[np.generic]) -> float:
    """The L2 norm, in float64; infinite if it is over what that can hold, NaN if a value is.

    By NumPy's own sum, not BLAS's: its last bits would depend on the number of threads.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return math.sqrt(np.square(np.asarray(values, dtype=np.float64)).sum())
