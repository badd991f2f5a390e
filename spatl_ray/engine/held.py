"""A downlink of quantised differences: what clients hold follows what the server has.

All clients that are up to date hold the same values h, and h = x before round 0. After a round the server
sends Q(x - h): in few bits and, if so configured, of the channels that differ most; both sides add it to h.
What is left of x - h is in the next difference: it comes later, and is not lost. One that missed rounds is
sent their differences, too, or h as a whole where that is shorter; one whose update never counted gets h.
Clients train from h, and send what they moved.

In the simulation workers take h as a whole; each message is encoded, and its length is what counts.

References:
    Tang, Yu, Lian, Zhang, Liu, "DoubleSqueeze: Parallel stochastic gradient descent with double-pass
    error-compensated compression", ICML 2019: the server's error feedback.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from spatl_ray.algorithms.base import BUFFERS, CONTROL, Algorithm
from spatl_ray.config import Experiment
from spatl_ray.engine.messages import NEVER
from spatl_ray.parameters import Array, Arrays, Space
from spatl_ray.selection.salience import channel_norms, keep_most_salient, layer_ratios
from spatl_ray.update import WHOLE, Broadcast, Part, Parts, channel_mask, element_mask, keep
from spatl_ray.wire.codec import encode

HELD = "held_"
"""Begins the names of the server's arrays of what clients hold."""

BYTES = "held_bytes"
"""Name of the array with the length of each round's difference as encoded, shape (rounds + 1,)."""


class Held:
    """What clients hold, beside the server's arrays.

    Args:
        experiment: says in how many bits differences are sent.
        algorithm: says what is broadcast.
    """

    def __init__(self, experiment: Experiment, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.rounds = experiment.rounds
        wire = experiment.wire
        self.default, self.kinds = wire.broadcast, {CONTROL: wire.control or wire.broadcast}
        self.share = wire.broadcast_keep

    def first(self, server: Arrays) -> Arrays:
        """The arrays before round 0: all that is broadcast, as it is; buffers are always sent as they are.

        Args:
            server: its arrays before round 0.
        """
        names = [n for n in self.algorithm.broadcast(server) if n in server and n != BUFFERS]
        held = {f"{HELD}{name}": server[name].copy() for name in names}
        return {**held, BYTES: np.zeros(self.rounds + 1, dtype=np.int64)}

    def after(self, before: Arrays, server: Arrays, round_: int) -> Arrays:
        """The arrays before a round, from those before the last one.

        Args:
            before: the server's arrays before the last round, these among them.
            server: its arrays now.
            round_: the round to come.
        """
        message = self.differences(before, server)
        lengths = before[BYTES].copy()
        lengths[round_] = len(encode(Broadcast(round_, message), self.algorithm.spaces()))
        return {**self.added(_held(before), message), BYTES: lengths}

    def differences(self, before: Arrays, server: Arrays) -> Parts:
        """What is sent before a round: Q(x - h) by part, at the channels that differ most."""
        return {
            name: self._difference(name, server[name] - old) for name, old in _held(before).items()
        }

    def _difference(self, name: str, moved: Array) -> Part:
        """A part of Q(x - h); positions of no channel are always sent."""
        space, mask = self.algorithm.spaces()[name], WHOLE
        if self.share < 1 and space.channels:
            scores = channel_norms(space, moved, order=2, whole=True)
            ratios = layer_ratios(space, self.share, {})
            mask = channel_mask(keep_most_salient(space, scores, ratios))
        return keep(moved, mask, space, self.kinds.get(name, self.default))

    def added(self, held: Arrays, message: Parts) -> Arrays:
        """Both sides' step: h + Q(x - h), as the server's arrays name it."""
        spaces = self.algorithm.spaces()
        return {
            f"{HELD}{name}": old + message[name].dense(spaces[name], old.dtype)
            for name, old in held.items()
        }

    def sizes(
        self, server: Arrays, round_: int, known: Collection[int], full: int
    ) -> dict[int, int]:
        """Bytes that clients are sent whose last update that counted was in a round, by that round.

        Args:
            server: its arrays, these among them.
            round_: the round to come.
            known: rounds, or NEVER.
            full: bytes of the full broadcast.
        """
        spaces = self.algorithm.spaces()
        whole = len(encode(Broadcast(round_, self.whole(server)), spaces))
        rest = len(encode(Broadcast(round_, self._rest(server)), spaces))
        missed = {n: server[BYTES][n + 1 : round_ + 1].sum() for n in known if n != NEVER}
        return {NEVER: whole, **{last: min(whole, rest + int(m)) for last, m in missed.items()}}

    def whole(self, server: Arrays) -> Parts:
        """What a client is sent that holds nothing: all, but of a vector of zeros not its zeros."""
        parts, spaces = self.algorithm.broadcast(as_held(server)), self.algorithm.spaces()
        return {name: _without_zeros(part, spaces[name]) for name, part in parts.items()}

    def _rest(self, server: Arrays) -> Parts:
        """What is broadcast as it is."""
        held = _held(server)
        parts = self.algorithm.broadcast(server)
        return {name: part for name, part in parts.items() if name not in held}


def _without_zeros(part: Part, space: Space) -> Part:
    """The part, or one of no positions if it is a whole vector of zeros: it means the same."""
    if part.mask != WHOLE or np.any(part.values):
        return part
    return Part(element_mask(np.zeros(space.size, np.bool_)), part.values[:0])


def as_held(server: Arrays) -> Arrays:
    """The server's arrays with what clients hold in the places of what it has."""
    return {**server, **_held(server)}


def _held(server: Arrays) -> Arrays:
    """What clients hold, by part name."""
    names = [name for name in server if name.startswith(HELD) and name != BYTES]
    return {name.removeprefix(HELD): server[name] for name in names}
