"""A downlink of differences in few bits: both sides hold the same, and each byte was encoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import ran, same_bits, saved, serial, small, table

from spatl_ray import run
from spatl_ray.engine.backend import Done, Following, RoundPlan, SerialBackend, nothing_follows
from spatl_ray.engine.held import HELD, Held, as_held
from spatl_ray.engine.messages import NEVER, RoundOutcome
from spatl_ray.errors import ConfigError
from spatl_ray.parameters import Arrays
from spatl_ray.quantised import BITS
from spatl_ray.update import Broadcast
from spatl_ray.wire.codec import decode_broadcast, encode

pytestmark = pytest.mark.integration

SPATL: dict[str, Any] = {"name": "spatl", "keep": 0.5}
PART: dict[str, Any] = {"sampler": "round_robin", "sample_ratio": 1 / 3, "rounds": 7}
SHARES = pytest.mark.parametrize("share", [1.0, 0.5])
KINDS = pytest.mark.parametrize("kind", list(BITS))


class Clients(SerialBackend):
    """Plays the clients' side: each adds the differences that it is sent, those of missed rounds first."""

    played = 0

    def train(
        self, plan: RoundPlan, done: Done, following: Following = nothing_follows
    ) -> RoundOutcome:
        algorithm, server = self.aggregator.algorithm, self.aggregator.server
        held = Held(self.aggregator.blueprint.experiment, algorithm)
        self.log: dict[int, bytes] = getattr(self, "log", {})
        self.has: dict[int, Arrays] = getattr(self, "has", {})
        if plan.round:
            message = held.differences(self.before, server)
            self.log[plan.round] = encode(Broadcast(plan.round, message), algorithm.spaces())
        self.before = server
        full = encode(Broadcast(plan.round, held.whole(server)), algorithm.spaces())
        sent = decode_broadcast(full, algorithm.spaces()).parts
        common = decode_broadcast(
            self.aggregator.broadcast(plan.round, ()).common, algorithm.spaces()
        )
        first, plain = (algorithm.receive(parts, {}) for parts in (sent, common.parts))
        assert same_bits(first, plain)
        wanted = {n: a for n, a in server.items() if n.startswith(HELD) and n != "held_bytes"}
        rest = len(encode(Broadcast(plan.round, held._rest(server)), algorithm.spaces()))
        bytes_down = {}
        for member in plan.members:
            bytes_down[member.client] = len(full)
            if member.last != NEVER:
                missed = [self.log[r] for r in range(member.last + 1, plan.round + 1)]
                has = self.has[member.last]
                for payload in missed:
                    parts = decode_broadcast(payload, algorithm.spaces()).parts
                    plain = {n.removeprefix(HELD): a for n, a in has.items()}
                    has = held.added(plain, parts)
                assert same_bits(has, wanted)
                bytes_down[member.client] = min(len(full), rest + sum(map(len, missed)))
                self.played += 1
        self.has[plan.round] = wanted
        outcome = super().train(plan, done, following)
        assert {r.client: r.bytes_down for r in outcome.clients} == bytes_down
        return outcome


@KINDS
@SHARES
@pytest.mark.parametrize("algorithm", [SPATL, {"name": "fedavg"}], ids=["spatl", "fedavg"])
def test_clients_hold_what_the_server_says(
    tmp_path: Path, kind: str, share: float, algorithm: dict[str, Any]
) -> None:
    """From decoded messages alone, also over missed rounds; and every byte is one of a message."""
    wire = {"broadcast": kind, "broadcast_keep": share}
    experiment = small(tmp_path, algorithm, wire=wire, **PART)
    plain = serial(experiment)
    backend = Clients(experiment, plain._data, plain._states)
    run(experiment, backend=backend)
    assert backend.played == 8  # of 14 rounds of clients, 6 are first ones


@KINDS
def test_the_server_is_followed_to_within_a_step(tmp_path: Path, kind: str) -> None:
    """|x - h| is at most half of the last difference's step, |x - h before| / (127 or 7) and 1/128 more."""
    _, backend = ran(small(tmp_path, SPATL, wire={"broadcast": kind}, rounds=5))
    server = backend.arrays()
    held = as_held(server)
    for name in ("model", "control"):
        error = np.abs(server[name] - held[name]).max()
        moved = np.abs(server[name] - backend.arrays()[f"{HELD}{name}"]).max()
        assert 0 < error <= moved + 1e-12
        size = np.abs(server[name]).max()
        assert error < size / (100 if kind == "int8" else 5)


@KINDS
@SHARES
def test_what_is_left_comes_later(tmp_path: Path, kind: str, share: float) -> None:
    """Once nothing moves any more, what is left of x - h shrinks with each round, to nothing."""
    wire = {"broadcast": kind, "broadcast_keep": share}
    experiment = small(tmp_path, "fedavg", wire=wire, rounds=40)
    backend = serial(experiment)
    backend.start()
    aggregator = backend.aggregator
    held = Held(experiment, aggregator.algorithm)
    moved = np.random.default_rng(0).normal(size=len(aggregator.server["model"]))
    server = {**aggregator.server, "model": aggregator.server["model"] + moved.astype(np.float32)}
    errors = []
    for round_ in range(1, int(13 / share)):
        server = {**server, **held.after(server, server, round_)}
        errors.append(np.linalg.norm(server["model"] - as_held(server)["model"]))
    assert (np.diff(errors[:5]) < 0).all()
    assert errors[-1] < 1e-6


def test_fewer_bytes_travel_at_about_the_same_accuracy(tmp_path: Path) -> None:
    """A quarter and an eighth of four bytes a value, and scales; down less, where nothing moved."""
    sums, accuracies = {}, {}
    for kind in ("full", "int8", "int4"):
        wire = {"broadcast": kind, "uplink": None if kind == "full" else kind}
        ran(small(tmp_path / kind, SPATL, wire=wire, rounds=12, training={"lr": 0.1}))
        clients = table(tmp_path / kind, "clients").query("round > 0")
        sums[kind] = clients[["bytes_up", "bytes_down"]].sum()
        rounds = table(tmp_path / kind, "rounds")
        accuracies[kind] = rounds["panel_local_test_accuracy_mean"].dropna().iloc[-1]
    for kind, least, most in (("int8", 0.25, 0.28), ("int4", 0.125, 0.16)):
        share = sums[kind] / sums["full"]
        assert least < share["bytes_up"] < most
        assert share["bytes_down"] < most
        assert accuracies[kind] > accuracies["full"] - 0.05


def test_the_channels_that_differ_most_are_sent(tmp_path: Path) -> None:
    """Half of each layer's, by all that goes with a channel; the predictor, which no channel has, always."""
    experiment = small(
        tmp_path, "fedavg", wire={"broadcast": "int8", "broadcast_keep": 0.5}, model="cnn"
    )
    backend = serial(experiment)
    backend.start()
    aggregator = backend.aggregator
    space = aggregator.algorithm.spaces()["model"]
    moved = np.full(space.size, 1e-3, np.float32)
    wanted = np.zeros(space.channels, np.bool_)
    for group in space.groups:  # the biases of every second channel move far
        own = np.zeros(group.channels, np.bool_)
        own[1::2] = True
        wanted[group.offset : group.offset + group.channels] = own
        for segment in space.segments:
            if segment.name == f"{group.name}.bias":
                moved[segment.span][own] = 1.0
    server = {**aggregator.server, "model": aggregator.server["model"] + moved}
    part = Held(experiment, aggregator.algorithm).differences(server, server)["model"]
    assert part.mask.bits is not None
    assert part.mask.bits.tolist() == wanted.tolist()
    assert len(part.values) == space.expand(wanted).sum() < space.size


def test_a_server_that_goes_on_from_its_arrays_sends_the_same(tmp_path: Path) -> None:
    experiment = small(tmp_path, SPATL, wire={"broadcast": "int4"}, **PART)
    _, backend = ran(experiment)
    again = serial(experiment)
    again.start()
    again.aggregator.restore(backend.arrays(), 7)
    known = {0, 2, 5, 6}
    found = [b.aggregator.broadcast(7, (), known) for b in (backend, again)]
    assert found[0].common == found[1].common
    assert found[0].differences == found[1].differences
    assert found[0].differences[NEVER] <= len(found[0].common)
    assert found[0].differences[6] < found[0].differences[5] < found[0].differences[2]


def test_the_model_that_is_saved_is_the_trained_one(tmp_path: Path) -> None:
    """Not what clients hold, which is a step behind."""
    experiment = small(tmp_path, "fedavg", wire={"broadcast": "int4"})
    _, backend = ran(experiment)
    files = saved(experiment)
    flat = np.concatenate([a.ravel() for n, a in files.items() if n.startswith("model/")])
    assert np.sort(flat).tobytes() == np.sort(backend.arrays()["model"]).tobytes()


def test_zeros_are_not_sent(tmp_path: Path) -> None:
    """Before round 0 the control variate is 0, and costs its frame and one byte for an empty mask."""
    experiment = small(tmp_path, SPATL, wire={"broadcast": "int8"})
    backend = serial(experiment)
    backend.start()
    sent = backend.aggregator.broadcast(0, (), {NEVER})
    size = len(backend.arrays()["control"])
    assert len(sent.common) - sent.differences[NEVER] == 4 * size - 1


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        ({"broadcast": "int8", "downlink": "float16"}, "wire: downlink must be null"),
        ({"broadcast": "int8", "control": "float16"}, "control must be int8 or int4"),
        ({"broadcast": "changed", "control": "int4"}, "control must be a float type"),
        ({"broadcast": "int2"}, "broadcast"),
        ({"broadcast_keep": 0.5}, "broadcast_keep must be 1 with broadcast=full.*got 0.5"),
        ({"broadcast": "int4", "broadcast_keep": 0.0}, "broadcast_keep"),
        ({"states": "int8"}, "states"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, wire: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        small(tmp_path, SPATL, wire=wire)
