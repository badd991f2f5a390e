"""What the server makes of updates that are not what they should be, and of groups that come twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import same_bits, serial, small

from spatl_ray.algorithms.base import CONTROL, DELTA
from spatl_ray.engine.backend import RoundPlan, SerialBackend
from spatl_ray.engine.messages import BroadcastBytes, Envelope, GroupPayloads, GroupTask, Member
from spatl_ray.engine.schedule import cohort_weights, objective_weights
from spatl_ray.errors import AggregationError
from spatl_ray.wire.codec import decode_update, encode

CLIENTS = np.arange(6)


def started(folder: Path, **fields: Any) -> SerialBackend:
    """SCAFFOLD, before its first round."""
    backend = serial(small(folder, "scaffold", **fields))
    backend.start()
    return backend


def groups_of(backend: SerialBackend, count: int) -> tuple[list[GroupTask], BroadcastBytes]:
    """The first round, cut into groups."""
    experiment, sizes = backend.worker.experiment, backend.worker.population.data.sizes("train")
    weights = cohort_weights(CLIENTS, objective_weights(experiment, sizes), np.ones(6))
    members = tuple(Member(c, w) for c, w in zip(CLIENTS.tolist(), weights, strict=True))
    plan = RoundPlan(0, 0.05, members, (1.0,) * 6)
    return plan.groups(count), backend.aggregator.broadcast(0, CLIENTS.tolist())


def payloads(backend: SerialBackend) -> GroupPayloads:
    (task,), broadcast = groups_of(backend, 1)
    return backend.worker.train_payloads(task, broadcast)[0]


def changed(backend: SerialBackend, envelope: Envelope, **fields: Any) -> Envelope:
    """The same with other fields in its update."""
    spaces = backend.worker.algorithm.spaces()
    update = decode_update(envelope.payload, spaces, envelope.remembered)
    if "parts" in fields:
        fields["parts"] = {n: p for n, p in update.parts.items() if n in fields["parts"]}
    payload = encode(replace(update, **fields), spaces, envelope.remembered)
    return replace(envelope, payload=payload)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"round": 7}, "it names round 7, client 2"),
        ({"client": 5}, "it names round 0, client 5"),
        ({"parts": (CONTROL,)}, f"part {DELTA!r} is missing"),
    ],
)
def test_an_update_that_is_not_the_clients_is_rejected_alone(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    """The server steps as if the client had failed."""
    backend = started(tmp_path, aggregation={"rule": "median"})
    sent = payloads(backend)
    good, bad = sent.envelopes, sent.envelopes[2]
    assert bad.client == 2
    others = tuple(envelope for envelope in good if envelope is not bad)
    without = started(tmp_path, aggregation={"rule": "median"})
    without.aggregator.step(0, 1, [replace(sent, envelopes=others)])
    wrong = changed(backend, bad, **fields)
    step = backend.aggregator.step(0, 1, [replace(sent, envelopes=(*others, wrong))])
    assert (step.verdicts[2].status, step.verdicts[2].reason) == ("rejected", reason)
    assert {c for c, verdict in step.verdicts.items() if verdict.counts} == {0, 1, 3, 4, 5}
    assert same_bits(backend.arrays(), without.arrays())


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_a_group_that_comes_twice_counts_once(tmp_path: Path, rule: str) -> None:
    found = []
    for again in (False, True):
        backend = started(tmp_path, aggregation={"rule": rule})
        tasks, broadcast = groups_of(backend, 3)
        worker = backend.worker
        train = worker.train if rule == "mean" else worker.train_payloads
        groups: list[Any] = [train(task, broadcast)[0] for task in tasks]
        twice = [groups[1], *groups, groups[1], groups[2]] if again else groups
        step = backend.aggregator.step(0, 3, twice)
        assert len(step.verdicts) == (0 if rule == "mean" else 6)
        found.append(backend.arrays())
    assert same_bits(*found)
    with pytest.raises(AggregationError, match="round must be 1, got 0"):
        backend.aggregator.step(0, 3, groups)


def test_a_group_that_comes_twice_does_not_stand_for_one_that_is_missing(tmp_path: Path) -> None:
    backend = started(tmp_path)
    tasks, broadcast = groups_of(backend, 2)
    group, _ = backend.worker.train(tasks[0], broadcast)
    with pytest.raises(AggregationError, match="round 0 needs 2 groups, got 1"):
        backend.aggregator.step(0, 2, [group, group])
    assert backend.aggregator.round == 0
