"""The aggregator: owns the global model and combines a round's updates."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence

import torch

from spatl_ray.aggregation.masked import Accumulator, Total, Weights
from spatl_ray.aggregation.robust import (
    coordinate_median,
    hostile_clients,
    krum_choice,
    krum_scores,
    trimmed_mean,
)
from spatl_ray.aggregation.verdict import Verdict
from spatl_ray.algorithms.base import CONTROL, DELTA
from spatl_ray.arrays import l2_norm
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.engine.blueprint import make_blueprint
from spatl_ray.engine.downlink import make_downlink
from spatl_ray.engine.environment import fingerprint
from spatl_ray.engine.held import as_held
from spatl_ray.engine.messages import (
    BroadcastBytes,
    Drift,
    Envelope,
    GroupPayloads,
    GroupSums,
    StepReport,
)
from spatl_ray.engine.profile import Spans
from spatl_ray.engine.receive import Received, receive
from spatl_ray.engine.sums import merged
from spatl_ray.errors import AggregationError, StateError
from spatl_ray.parameters import Arrays, ModelVector
from spatl_ray.update import Broadcast, Part, Parts, Update
from spatl_ray.wire.codec import decode_broadcast, encode

KRUM = ("krum", "multi_krum")
"""Rules that choose among updates."""

BY_POSITION = {"median": coordinate_median, "trimmed_mean": trimmed_mean}
"""Rules that look at each position on its own."""

LATE = Verdict("late", reason="the cohort was complete before")


class Aggregator:
    """The server of a run.

    Args:
        experiment: the config.
        spec: of the data.
    """

    def __init__(self, experiment: Experiment, spec: SampleSpec) -> None:
        torch.set_num_threads(1)
        self.blueprint = make_blueprint(experiment, spec, torch.device("cpu"))
        self.algorithm = self.blueprint.algorithm
        self.server: Arrays = self.algorithm.start_server(self.blueprint.initial)
        self._downlink = make_downlink(experiment, self.algorithm)
        if self._downlink is not None:
            self.server = {**self.server, **self._downlink.first(self.server)}
        self.round = 0
        self.spans = Spans(experiment.engine.profile)
        self._lock = threading.Lock()
        self._cached: BroadcastBytes | None = None

    def facts(self) -> str:
        """The fingerprint of this process."""
        return fingerprint(torch.device("cpu"))

    def broadcast(
        self, round_: int, clients: Sequence[int], known: Collection[int] = ()
    ) -> BroadcastBytes:
        """The round's broadcast; the common part is encoded once a round.

        Args:
            round_: the round.
            clients: that may receive something of their own.
            known: rounds in which clients' states were last committed; differences to them are encoded.

        Raises:
            AggregationError: not the round that the server is in.
        """
        self._check_round(round_)
        if self._cached is None or self._cached.round != round_:
            with self.spans.of("encode broadcast"):
                common = self._encode(self.algorithm.broadcast(as_held(self.server)))
            self._cached = BroadcastBytes(round_, common)
        personal = {c: self._encode(self.algorithm.personal(self.server, c)) for c in clients}
        personal = {c: payload for c, payload in personal.items() if payload}
        return BroadcastBytes(round_, self._cached.common, personal, self._differences(known))

    def _differences(self, known: Collection[int]) -> dict[int, int]:
        """Bytes of the differences to the broadcasts of some rounds; none if all is sent to everybody."""
        if self._downlink is None or self._cached is None:
            return {}
        full = len(self._cached.common)
        with self.spans.of("encode differences"):
            return self._downlink.sizes(self.server, self.round, known, full)

    def global_model(self) -> ModelVector | None:
        """The one model of the whole federation, if there is one."""
        return self.algorithm.global_model(self.server)

    def step(
        self,
        round_: int,
        expected: int,
        groups: Sequence[GroupSums | GroupPayloads],
        late: frozenset[int] = frozenset(),
    ) -> StepReport:
        """Combine the groups of a round, in any order; a group that comes twice counts once.

        Args:
            round_: the round.
            expected: number of groups that the round has.
            groups: what the workers sent.
            late: clients whose payloads came after the cohort was complete.

        Raises:
            AggregationError: a group of another round, or one that is missing.
        """
        start = time.perf_counter()
        for number in (round_, *(group.round for group in groups)):
            self._check_round(number)
        unique = {group.group: group for group in groups}
        if len(unique) != expected:
            raise AggregationError(f"round {round_} needs {expected} groups, got {len(unique)}")
        sums = [g for g in unique.values() if isinstance(g, GroupSums)]
        payloads = [g for g in unique.values() if isinstance(g, GroupPayloads)]
        verdicts: dict[int, Verdict] = {}
        with self.spans.of("combine"):
            if payloads:
                totals, verdicts = self._combine(payloads, late)
            else:
                totals = merged(self.blueprint, [g.partial for g in sums]).totals()
        accepted = {c for g in sums for c in g.accepted}
        accepted |= {c for c, verdict in verdicts.items() if verdict.counts}
        with self.spans.of("step"):
            server = self.algorithm.step(self.server, totals, frozenset(accepted))
            if self._downlink is not None:
                server = {**server, **self._downlink.after(self.server, server, self.round + 1)}
        with self._lock:
            self.server, self.round = server, self.round + 1
        return StepReport(round_, verdicts, time.perf_counter() - start, _drift(totals, server))

    def arrays(self) -> Arrays:
        """The server's arrays."""
        return dict(self.server)

    def snapshot(self) -> tuple[int, Arrays]:
        """The round to come, and the server's arrays before it; another thread may ask."""
        with self._lock:
            return self.round, dict(self.server)

    def restore(self, arrays: Arrays, round_: int) -> None:
        """Go on from arrays of an earlier `arrays`, before round `round_`.

        Raises:
            StateError: an array is missing, or of another type.
        """
        for name, array in self.server.items():
            found = arrays.get(name)
            if found is None or found.dtype != array.dtype:
                got = "none" if found is None else str(found.dtype)
                raise StateError(
                    f"the server must go on with an array {name!r} of {array.dtype}, got {got}: it is of "
                    "another run"
                )
        self.server, self.round, self._cached = dict(arrays), round_, None

    def _check_round(self, round_: int) -> None:
        if round_ != self.round:
            raise AggregationError(f"round must be {self.round}, got {round_}")

    def _encode(self, parts: Parts) -> bytes:
        return encode(Broadcast(self.round, parts), self.algorithm.spaces())

    def _combine(
        self, groups: Sequence[GroupPayloads], late: frozenset[int]
    ) -> tuple[Mapping[str, Total], dict[int, Verdict]]:
        """Judge every update, and combine those that count."""
        judged: list[tuple[Weights, Received]] = []
        verdicts: dict[int, Verdict] = {}
        envelopes = [(e, group.lr) for group in groups for e in group.envelopes]
        for envelope, lr in sorted(envelopes, key=lambda pair: pair[0].client):
            if envelope.client in late:
                verdicts[envelope.client] = LATE
                continue
            received = self._receive(envelope, lr)
            verdicts[envelope.client] = received.verdict
            if received.verdict.counts:
                judged.append((envelope.weights, received))
        if self.blueprint.experiment.aggregation.rule in KRUM:
            judged = self._nearest(judged, verdicts)
        partial = merged(self.blueprint, [])
        for weights, received in judged:
            partial.add(received.terms, weights)
            partial.note_length(DELTA, received.terms, weights)
        central = self._central([received for _, received in judged])
        return {**partial.totals(), **central}, verdicts

    def _nearest(
        self, judged: list[tuple[Weights, Received]], verdicts: dict[int, Verdict]
    ) -> list[tuple[Weights, Received]]:
        """The updates that Krum chooses; the verdict on all others is rejected."""
        options, n = self.blueprint.experiment.aggregation, len(judged)
        means = self._means()
        f = hostile_clients(options.hostile, n)
        terms = [[received.terms[mean.name] for mean in means] for _, received in judged]
        scores = krum_scores([mean.space for mean in means], terms, f)
        chosen = krum_choice(scores, 1 if options.rule == "krum" else n - f)
        for index, (_, received) in enumerate(judged):
            if index not in chosen:
                reason = f"{options.rule}: {scores[index]:.4g} away from the nearest others"
                verdicts[received.update.client] = Verdict("rejected", reason=reason)
        return [judged[index] for index in chosen]

    def _central(self, received: Sequence[Received]) -> dict[str, Total]:
        """Totals that are no means: those of the coordinate-wise rules.

        Plain sums stay sums: the server's control variate must stay the mean of the clients' own.
        """
        options = self.blueprint.experiment.aggregation
        rule = BY_POSITION.get(options.rule)
        if not received or rule is None:
            return {}
        return {
            each.name: rule(
                each.space, [other.terms[each.name] for other in received], options.hostile
            )
            for each in self._means()
        }

    def _means(self) -> list[Accumulator]:
        """Accumulators that are means, not sums."""
        return [a for a in self.algorithm.accumulators() if a.denominator is not None]

    def _receive(self, envelope: Envelope, lr: float) -> Received:
        """The judged update of one envelope."""
        sent = self.broadcast(self.round, (envelope.client,))
        parts: dict[str, Part] = {}
        for payload in (sent.common, sent.personal.get(envelope.client, b"")):
            if payload:
                parts.update(decode_broadcast(payload, self.algorithm.spaces()).parts)
        received = self.algorithm.started_from(self.server, parts, envelope.client)
        expected = Update(self.round, envelope.client, 0, 0, {})
        return receive(
            self.blueprint, envelope.payload, envelope.remembered, received, expected, lr
        )


def _drift(totals: Mapping[str, Total], server: Arrays) -> Drift:
    """How far the round's clients pull apart; coordinate-wise rules leave no cosine."""
    return Drift(
        totals[DELTA].cosine if DELTA in totals else None,
        l2_norm(server[CONTROL]) if CONTROL in server else None,
    )
