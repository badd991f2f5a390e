"""What travels and what stays: masked parts, broadcasts, updates, client states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import ml_dtypes
import numpy as np

from spatl_ray.arrays import Bits, Integers
from spatl_ray.errors import WireError
from spatl_ray.parameters import Array, Arrays, Space
from spatl_ray.quantised import BITS, Quantised, quantise

VALUE_TYPES: Mapping[str, np.dtype[np.generic]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float64": np.dtype(np.float64),
}


class MaskKind(IntEnum):
    """How the kept positions of a vector are named."""

    WHOLE = 0
    CHANNEL = 1
    ELEMENT = 2


@dataclass(frozen=True, eq=False)
class Mask:
    """Which positions of a vector are kept.

    Attributes:
        kind: all positions, whole output channels, or single positions.
        bits: None for WHOLE; shape (space.channels,) for CHANNEL; (space.size,) for ELEMENT.
    """

    kind: MaskKind
    bits: Bits | None = None

    def positions(self, space: Space) -> Bits | None:
        """The kept positions in `space`, shape (space.size,), or None for all."""
        if self.kind is MaskKind.WHOLE:
            return None
        assert self.bits is not None
        return space.expand(self.bits) if self.kind is MaskKind.CHANNEL else self.bits

    def runs(self, space: Space) -> Integers:
        """The kept positions of a CHANNEL mask as intervals [start, stop), ascending, shape (runs, 2)."""
        assert self.kind is MaskKind.CHANNEL
        assert self.bits is not None
        return space.runs(self.bits)

    def count(self, space: Space) -> int:
        """Number of kept positions in `space`."""
        kept = self.positions(space)
        return space.size if kept is None else int(np.count_nonzero(kept))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask) or other.kind is not self.kind:
            return NotImplemented if not isinstance(other, Mask) else False
        return self.bits is other.bits or (
            self.bits is not None
            and other.bits is not None
            and np.array_equal(self.bits, other.bits)
        )

    __hash__ = None  # type: ignore[assignment]


WHOLE = Mask(MaskKind.WHOLE)


def channel_mask(bits: Bits) -> Mask:
    """The mask that keeps whole output channels."""
    return Mask(MaskKind.CHANNEL, np.asarray(bits, dtype=np.bool_))


def element_mask(bits: Bits) -> Mask:
    """The mask that keeps single positions."""
    return Mask(MaskKind.ELEMENT, np.asarray(bits, dtype=np.bool_))


@dataclass(frozen=True, eq=False)
class Part:
    """The kept values of one flat vector, in the order of their positions.

    Attributes:
        mask: which positions.
        values: shape (mask.count(space),), in one of VALUE_TYPES.
        quantised: the integers and scales that `values` are made of, if they travel as such.
    """

    mask: Mask
    values: Array
    quantised: Quantised | None = None

    @property
    def value_type(self) -> str:
        """Name of the values' type on the wire: one of VALUE_TYPES, or of BITS."""
        return self.values.dtype.name if self.quantised is None else f"int{self.quantised.bits}"

    def dense(self, space: Space, dtype: np.dtype[np.generic] | type[np.floating]) -> Array:
        """The vector of shape (space.size,) with zeros where nothing was kept."""
        kept = self.mask.positions(space)
        if kept is None:
            return np.asarray(self.values, dtype=dtype)
        vector: Array = np.zeros(space.size, dtype=dtype)
        vector[kept] = self.values
        return vector


Parts = Mapping[str, Part]


def keep(
    vector: Array,
    mask: Mask,
    space: Space,
    value_type: str,
    generator: np.random.Generator | None = None,
) -> Part:
    """The kept positions of `vector`, cast to `value_type`.

    Args:
        vector: shape (space.size,).
        mask: which positions.
        space: of the vector.
        value_type: one of VALUE_TYPES (round to nearest even), or of BITS.
        generator: for stochastic rounding, which those of BITS have; without, to the nearest.

    Raises:
        WireError: the vector does not fit its space.
    """
    if vector.shape != (space.size,):
        raise WireError(f"a vector of shape ({space.size},) is needed, got {vector.shape}")
    kept = mask.positions(space)
    return cast(mask, vector if kept is None else vector[kept], value_type, generator)


def cast(
    mask: Mask, values: Array, value_type: str, generator: np.random.Generator | None = None
) -> Part:
    """A part of values in a type; see `keep`.

    Args:
        values: shape (mask.count(space),).
    """
    if value_type in BITS:
        quantised = quantise(values, BITS[value_type], generator)
        return Part(mask, quantised.values, quantised)
    with np.errstate(over="ignore"):
        return Part(mask, np.ascontiguousarray(values, dtype=VALUE_TYPES[value_type]))


@dataclass(frozen=True, eq=False)
class Broadcast:
    """Server to clients: what a round starts from. Part names are the algorithm's."""

    round: int
    parts: Parts


@dataclass(frozen=True, eq=False)
class Update:
    """Client to server: what a client's round moved.

    Attributes:
        steps: local steps tau.
        samples: training samples n_i.
        parts: masked vectors by name, e.g. "delta".
    """

    round: int
    client: int
    steps: int
    samples: int
    parts: Parts


ClientState = Arrays
"""What a client keeps between rounds: flat arrays by name."""
