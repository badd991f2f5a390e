"""Flat vectors: which position belongs to which tensor, and which channel masks cover it.

Everything that is trained, sent, summed or stored is a flat array; a `Space` gives it names and
shapes. A model has four spaces (shared or local, parameters or buffers), held by a `Layout`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Bits, Integers

Array = npt.NDArray[np.floating]
Arrays = Mapping[str, Array]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class ChannelGroup:
    """The output channels of one prunable layer: the unit in which a channel mask decides.

    Attributes:
        name: the layer's name in its module.
        channels: number of output channels.
        offset: where its bits start among the bits of all groups.
    """

    name: str
    channels: int
    offset: int


@dataclass(frozen=True)
class Segment:
    """One named tensor inside a flat vector.

    Attributes:
        name: the tensor's name in its module.
        part: the model part it belongs to, e.g. "encoder" or "predictor".
        shape: the tensor's shape.
        offset: its first position in the vector.
        group: index of the channel group whose mask covers it row by row, or -1 for none.
    """

    name: str
    part: str
    shape: tuple[int, ...]
    offset: int
    group: int = -1

    @property
    def size(self) -> int:
        """Number of positions."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def span(self) -> slice:
        """Its positions in the vector."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Space:
    """A flat vector's segments, in order and without gaps, and the channel groups over them."""

    segments: tuple[Segment, ...]
    groups: tuple[ChannelGroup, ...] = ()

    @cached_property
    def size(self) -> int:
        """Number of positions of the vector."""
        return sum(segment.size for segment in self.segments)

    @cached_property
    def channels(self) -> int:
        """Number of bits of a channel mask: the channels of all groups together."""
        return sum(group.channels for group in self.groups)

    @cached_property
    def norm_scales(self) -> tuple[Segment, ...]:
        """The factors with which normalisations multiply the channels of the groups."""
        return tuple(
            segment
            for segment in self.segments
            if segment.group >= 0 and len(segment.shape) == 1 and segment.name.endswith(".weight")
        )

    def views(self, vector: Array) -> dict[str, Array]:
        """The vector's segments by name, as views in their shapes."""
        return {s.name: vector[s.span].reshape(s.shape) for s in self.segments}

    def expand(self, bits: Bits) -> Bits:
        """Positions that a channel mask keeps: shape (size,); what no group covers is kept.

        Args:
            bits: shape (channels,), True for a channel that is kept.
        """
        return self.spread(bits, True)

    def spread(self, channels: npt.NDArray[Scalar], rest: object) -> npt.NDArray[Scalar]:
        """What holds for each channel, at each of its positions, shape (size,).

        Args:
            channels: shape (channels,).
            rest: what holds where no group is.
        """
        found = np.full(self.size, rest, dtype=channels.dtype)
        for segment in self.segments:
            if segment.group >= 0:
                group = self.groups[segment.group]
                rows = channels[group.offset : group.offset + group.channels]
                found[segment.span] = np.repeat(rows, segment.size // group.channels)
        return found

    def runs(self, bits: Bits) -> Integers:
        """Positions that a channel mask keeps, as intervals [start, stop), ascending, shape (runs, 2).

        Args:
            bits: shape (channels,), True for a channel that is kept.
        """
        found = []
        for segment in self.segments:
            if segment.group < 0:
                found.append(np.array([[segment.offset, segment.offset + segment.size]]))
                continue
            group = self.groups[segment.group]
            rows = bits[group.offset : group.offset + group.channels]
            edges = np.flatnonzero(np.diff(rows, prepend=False, append=False)).reshape(-1, 2)
            found.append(segment.offset + edges * (segment.size // group.channels))
        return np.concatenate(found) if found else np.zeros((0, 2), np.int64)

    def ranges(self, parts: frozenset[str]) -> tuple[slice, ...]:
        """The positions of the given parts as few, merged slices."""
        merged: list[slice] = []
        for segment in self.segments:
            if segment.part not in parts:
                continue
            span = segment.span
            if merged and merged[-1].stop == span.start:
                merged[-1] = slice(merged[-1].start, span.stop)
            else:
                merged.append(span)
        return tuple(merged)


def make_space(
    tensors: Sequence[tuple[str, str, tuple[int, ...], int]], groups: tuple[ChannelGroup, ...] = ()
) -> Space:
    """Lay (name, part, shape, group) tuples out one after the other."""
    segments = []
    offset = 0
    for name, part, shape, group in tensors:
        segments.append(Segment(name, part, shape, offset, group))
        offset += segments[-1].size
    return Space(tuple(segments), groups)


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a model lives.

    A model's parameter vector is shared then local; so is its buffer vector. Only what is shared
    appears in messages and on the server.
    """

    shared: Space
    local: Space
    shared_buffers: Space
    local_buffers: Space

    @cached_property
    def parameters(self) -> Space:
        """The whole parameter vector: shared, then local."""
        return _joined(self.shared, self.local)

    @cached_property
    def buffers(self) -> Space:
        """The whole buffer vector: shared, then local."""
        return _joined(self.shared_buffers, self.local_buffers)


def _joined(first: Space, second: Space) -> Space:
    """`second` behind `first`, under the groups of `first` (both hold the same ones)."""
    tensors = [(s.name, s.part, s.shape, s.group) for s in first.segments + second.segments]
    return make_space(tensors, first.groups)


@dataclass(frozen=True)
class ModelVector:
    """A whole model as two flat vectors, each shared then local.

    Attributes:
        parameters: shape (shared.size + local.size,).
        buffers: shape (shared_buffers.size + local_buffers.size,).
    """

    parameters: Array
    buffers: Array
