"""The server's side of one update: decode, judge, and derive what is summed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spatl_ray.aggregation.verdict import ACCEPTED, Verdict, judge_terms, judge_update
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.errors import WireError
from spatl_ray.parameters import Arrays
from spatl_ray.update import Mask, Parts, Update
from spatl_ray.wire.codec import decode_update


@dataclass(frozen=True, eq=False)
class Received:
    """A judged update: what counts, or why it does not."""

    verdict: Verdict
    update: Update
    terms: Parts


def receive(
    blueprint: Blueprint,
    payload: bytes,
    remembered: Mapping[str, Mask],
    received: Arrays,
    expected: Update,
    lr: float,
) -> Received:
    """Decode and judge an update.

    Args:
        blueprint: the run's algorithm and its spaces.
        payload: what was sent.
        remembered: masks of the client's last accepted update.
        received: the decoded broadcast that the client started from.
        expected: round and client that the payload must name (its parts do not matter); an empty
            payload stands for an update without parts.
        lr: learning rate of the round.
    """
    algorithm = blueprint.algorithm
    update = expected
    if payload:
        try:
            update = decode_update(payload, algorithm.spaces(), remembered)
        except WireError as error:
            return _rejected(expected, str(error))
    if (update.round, update.client) != (expected.round, expected.client):
        return _rejected(expected, f"it names round {update.round}, client {update.client}")
    verdict = judge_update(update, blueprint.experiment.aggregation.clip_norm)
    if not verdict.counts:
        return Received(verdict, update, {})
    counted = verdict.applied(update)
    try:
        terms = algorithm.terms(counted, received, lr)
    except KeyError as error:
        missing = error.args[0]
        if missing not in algorithm.spaces() or missing in update.parts:
            raise
        return _rejected(update, f"part {missing!r} is missing")
    declared = {accumulator.name for accumulator in algorithm.accumulators()}
    if terms.keys() != declared:
        return _rejected(update, f"it gives {sorted(terms)}, needed are {sorted(declared)}")
    on_terms = judge_terms(terms, blueprint.levels)
    return Received(verdict if on_terms is ACCEPTED else on_terms, counted, terms)


def _rejected(update: Update, reason: str) -> Received:
    return Received(Verdict("rejected", reason=reason), update, {})
