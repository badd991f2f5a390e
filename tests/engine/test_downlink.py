"""A downlink of differences is the full one to the bit, and costs what is really encoded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_runs import same_bits, serial, small, table

from spatl_ray import run
from spatl_ray.engine import downlink
from spatl_ray.engine.backend import (
    Done,
    Following,
    RoundPlan,
    SerialBackend,
    nothing_follows,
)
from spatl_ray.engine.messages import NEVER, RoundOutcome
from spatl_ray.update import Parts
from spatl_ray.wire.codec import decode_broadcast, encode

pytestmark = pytest.mark.integration

ALGORITHMS: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "spatl": {"name": "spatl", "keep": 0.1},
    "personal downlinks": {"name": "sketches:Differences"},
}
PART: dict[str, Any] = {"sampler": "round_robin", "sample_ratio": 1 / 3, "rounds": 7}


class Clients(SerialBackend):
    """Plays the clients' side: each keeps the broadcast at which its last update that counted began."""

    played = 0

    def train(
        self, plan: RoundPlan, done: Done, following: Following = nothing_follows
    ) -> RoundOutcome:
        algorithm, server = self.aggregator.algorithm, self.aggregator.server
        sent = self.aggregator.broadcast(plan.round, ())
        self.sent: dict[int, bytes] = {**getattr(self, "sent", {}), plan.round: sent.common}
        bytes_down = {}
        for member in plan.members:
            payload = sent.common
            if member.last != NEVER:
                known = {member.last}
                message = downlink.differences(algorithm, server, plan.round, known)[member.last]
                payload = min(encode(message, algorithm.spaces()), payload, key=len)
                had, got = self._parts(self.sent[member.last]), self._parts(payload)
                assert_same(downlink.patched(had, got, algorithm), self._parts(sent.common))
                self.played += 1
            bytes_down[member.client] = len(payload)
        outcome = super().train(plan, done, following)
        if algorithm.broadcast(server):
            assert {r.client: r.bytes_down for r in outcome.clients} == bytes_down
        return outcome

    def _parts(self, payload: bytes) -> Parts:
        spaces = self.aggregator.algorithm.spaces()
        return decode_broadcast(payload, spaces).parts if payload else {}


def assert_same(found: Parts, expected: Parts) -> None:
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        assert found[name].values.dtype == part.values.dtype
        assert found[name].values.tobytes() == part.values.tobytes()


def played(folder: Path, name: str, wire: Mapping[str, Any], **fields: Any) -> Clients:
    """A run with differences whose clients' side is played, too."""
    wire = {**wire, "broadcast": "changed"}
    experiment = small(folder, ALGORITHMS[name], wire=wire, **{**PART, **fields})
    plain = serial(experiment)
    backend = Clients(experiment, plain._data, plain._states)
    run(experiment, backend=backend)
    return backend


@pytest.mark.parametrize(
    ("name", "values"), [("fedavg", None), ("spatl", "bfloat16"), ("personal downlinks", None)]
)
def test_it_is_the_full_one_to_the_bit(tmp_path: Path, name: str, values: str | None) -> None:
    """In every round and for every client; nothing else of the run differs."""
    wire = {"downlink": values}
    backend = played(tmp_path / "changed", name, wire)
    assert backend.played == 8  # of 14 rounds of clients, 6 are first ones
    experiment = small(tmp_path / "full", ALGORITHMS[name], wire=wire, **PART)
    full = serial(experiment)
    run(experiment, backend=full)
    arrays = {n: a for n, a in backend.arrays().items() if not n.startswith(downlink.SINCE)}
    assert same_bits(arrays, full.arrays())
    before, after = (table(tmp_path / kind, "clients") for kind in ("full", "changed"))
    for column in ("bytes_up", "train_loss", "local_test_accuracy"):
        assert before[column].equals(after[column]), column
    assert (after["bytes_down"] <= before["bytes_down"]).all()
    if name == "spatl":
        assert after["bytes_down"].sum() < 0.9 * before["bytes_down"].sum()


def test_what_did_not_change_costs_its_frame_only(tmp_path: Path) -> None:
    """15 bytes of a broadcast, 11 and the name of a part, and one byte for an empty mask."""
    fields: dict[str, Any] = {"training": {"lr": 1e-30}, "sample_ratio": 1.0, "rounds": 2}
    played(tmp_path, "fedavg", {}, **fields)
    second = table(tmp_path, "clients").query("round == 1")
    assert (second["bytes_down"] == 15 + 11 + len("model") + 1).all()


def test_a_client_whose_update_did_not_count_gets_what_changed_since_the_last_that_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Client 1 sends NaN from round 1 on: its state stays that of round 0, and so does what it has."""
    options = {"name": "small_runs:SabotagedScaffold", "options": {"1": "nan", "from": 1}}
    monkeypatch.setitem(ALGORITHMS, "sabotaged", options)
    backend = played(tmp_path, "sabotaged", {}, sample_ratio=1.0, rounds=4)
    assert backend.played == 18
    statuses = table(tmp_path, "clients").query("client == 1")["status"].tolist()
    assert statuses == ["accepted", "rejected", "rejected", "rejected"]


def test_a_server_that_goes_on_from_its_arrays_sends_the_same(tmp_path: Path) -> None:
    backend = played(tmp_path, "spatl", {})
    again = serial(small(tmp_path / "again", ALGORITHMS["spatl"], wire={"broadcast": "changed"}))
    again.start()
    again.aggregator.restore(backend.arrays(), 7)
    known = {2, 4, 6}
    found = [b.aggregator.broadcast(7, (), known).differences for b in (backend, again)]
    assert found[0] == found[1]
    assert sorted(found[0].values()) == [found[0][last] for last in (6, 4, 2)]
