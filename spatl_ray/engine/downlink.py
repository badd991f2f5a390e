"""A downlink of differences: only what changed since the client last took part.

What a client has is known without being told: its last update that counted began at that round's broadcast,
which it keeps. So the server notes of each position since which round's broadcast it has its value, as it
is cast for the wire, and sends a client the positions that are younger than that. The values are those of
the full broadcast, to the bit. A client whose update never counted gets all of it.

In the simulation clients take the values from the full broadcast; each message is encoded, and its length
is what counts.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Protocol

import numpy as np

from spatl_ray.algorithms.base import Algorithm
from spatl_ray.arrays import Bits
from spatl_ray.config import Experiment
from spatl_ray.engine.held import Held
from spatl_ray.engine.messages import NEVER
from spatl_ray.parameters import Array, Arrays, Space
from spatl_ray.update import WHOLE, Broadcast, Mask, Part, Parts, channel_mask, element_mask
from spatl_ray.wire.codec import encode
from spatl_ray.wire.masks import Known, encode_mask

SINCE = "since_"
"""Begins the names of arrays that say since which round's broadcast a position has its value."""


class Downlink(Protocol):
    """How clients are sent less than the whole broadcast; its arrays stand beside the server's."""

    def first(self, server: Arrays) -> Arrays:
        """The arrays before round 0."""
        ...

    def after(self, before: Arrays, server: Arrays, round_: int) -> Arrays:
        """The arrays before a round, from all before the last one and the server's now."""
        ...

    def sizes(
        self, server: Arrays, round_: int, known: Collection[int], full: int
    ) -> dict[int, int]:
        """Bytes of the messages to clients, by the round of their last update that counted."""
        ...


class Changed:
    """What changed since a client last took part; see the functions of the same names."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.first = partial(first, algorithm)
        self.after = partial(after, algorithm)
        self.sizes = partial(sizes, algorithm)


def make_downlink(experiment: Experiment, algorithm: Algorithm) -> Downlink | None:
    """The downlink of the config; None sends everybody all."""
    if experiment.wire.broadcast == "changed":
        return Changed(algorithm)
    return Held(experiment, algorithm) if experiment.wire.is_held else None


def first(algorithm: Algorithm, server: Arrays) -> Arrays:
    """The arrays before round 0: all values are of its broadcast.

    Args:
        algorithm: says what is broadcast.
        server: its arrays before round 0.
    """
    parts = _whole(algorithm.broadcast(server))
    return {f"{SINCE}{name}": np.zeros(len(part.values), np.int32) for name, part in parts.items()}


def after(algorithm: Algorithm, before: Arrays, server: Arrays, round_: int) -> Arrays:
    """The arrays before a round, from those before the last one.

    Args:
        algorithm: says what is broadcast.
        before: the server's arrays before the last round, these among them.
        server: its arrays now.
        round_: the round to come.
    """
    old, new = (_whole(algorithm.broadcast(arrays)) for arrays in (before, server))
    moved = {}
    for key in (key for key in before if key.startswith(SINCE)):
        name, since = key.removeprefix(SINCE), before[key].copy()
        both = name in old and name in new
        since[_bits(old[name].values) != _bits(new[name].values) if both else slice(None)] = round_
        moved[key] = since
    return moved


def differences(
    algorithm: Algorithm, server: Arrays, round_: int, known: Collection[int]
) -> dict[int, Broadcast]:
    """The message for clients whose last update that counted was in a round, by that round.

    Args:
        algorithm: says what is broadcast.
        server: its arrays, those of `first` and `after` among them.
        round_: the round to come.
        known: rounds; NEVER has no message of its own.
    """
    parts, spaces = algorithm.broadcast(server), algorithm.spaces()
    since = {n: server[f"{SINCE}{n}"] for n in _whole(parts) if f"{SINCE}{n}" in server}

    def younger(last: int) -> dict[str, Part]:
        cut = {n: _cut(parts[n], spaces[n], rounds > last) for n, rounds in since.items()}
        return {n: cut.get(n, part) for n, part in parts.items()}

    return {last: Broadcast(round_, younger(last)) for last in known if last != NEVER}


def sizes(
    algorithm: Algorithm, server: Arrays, round_: int, known: Collection[int], full: int
) -> dict[int, int]:
    """Bytes of these messages as encoded; the full broadcast of `full` bytes is sent where it is shorter."""
    spaces = algorithm.spaces()
    messages = differences(algorithm, server, round_, known)
    return {last: min(full, len(encode(each, spaces))) for last, each in messages.items()}


def patched(had: Parts, message: Parts, algorithm: Algorithm) -> Parts:
    """The client's side: the whole broadcast, from the one that it kept and what changed since.

    Args:
        had: parts of the broadcast that it kept.
        message: what it receives.
        algorithm: knows the spaces.
    """
    whole = {}
    for name, part in message.items():
        kept = part.mask.positions(algorithm.spaces()[name])
        if kept is None:
            whole[name] = part
            continue
        values = had[name].values.copy()
        values[kept] = part.values
        whole[name] = Part(WHOLE, values)
    return whole


def _whole(parts: Parts) -> dict[str, Part]:
    """The parts without a mask; an algorithm of its own may mask some, which are sent as they are."""
    return {name: part for name, part in parts.items() if part.mask == WHOLE}


def _cut(part: Part, space: Space, changed: Bits) -> Part:
    """A part's changed positions, under the mask that comes cheapest: a few more may go with a channel."""
    masks = [WHOLE, element_mask(changed)]
    if space.channels:
        masks.append(channel_mask(_touched(space, changed)))
    mask = min(masks, key=lambda mask: _cost(mask, space, part.values.itemsize))
    kept = mask.positions(space)
    return part if kept is None else Part(mask, part.values[kept])


def _cost(mask: Mask, space: Space, itemsize: int) -> int:
    """Bytes of a mask and its values."""
    return len(encode_mask(mask, Known())[1]) + mask.count(space) * itemsize


def _touched(space: Space, changed: Bits) -> Bits:
    """Channels of which a position changed, shape (space.channels,)."""
    bits = np.zeros(space.channels, dtype=np.bool_)
    for segment in space.segments:
        if segment.group >= 0:
            group = space.groups[segment.group]
            own = bits[group.offset : group.offset + group.channels]
            own |= changed[segment.span].reshape(group.channels, -1).any(axis=1)
    return bits


def _bits(values: Array) -> Array:
    """Values as integers: of equal bits, also where they are NaN or zeros of two signs."""
    found: Array = values.view(f"u{values.itemsize}")
    return found
