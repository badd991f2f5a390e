"""What driver, workers and aggregator tell each other. The driver sees no payload."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from spatl_ray.aggregation.masked import Partial, Weights
from spatl_ray.aggregation.verdict import Verdict
from spatl_ray.federation.devices import Device, Times
from spatl_ray.parameters import ModelVector
from spatl_ray.training.evaluate import Score
from spatl_ray.update import Mask

NEVER = -1
"""Stands for the round of a client that was never committed."""


@dataclass(frozen=True)
class Member:
    """One client of a round's cohort.

    Attributes:
        weights: its weights in the sums.
        last: the round in which its state was last committed, -1 for never.
        measure: whether its model is evaluated right after local training.
        device: what its device can do, or None if no time is simulated.
        informed: whether it received the round's broadcast already, when it was asked for its loss.
    """

    client: int
    weights: Weights
    last: int = NEVER
    measure: bool = False
    device: Device | None = None
    informed: bool = False


@dataclass(frozen=True)
class GroupTask:
    """The clients that one worker trains in one round.

    Attributes:
        batches: clients that are trained at once, one batch after the other.
        flops: of training on one sample.
        elapsed: simulated seconds of the round that have passed before.
        kept: rounds of the checkpoints that can be restored.
    """

    round: int
    group: int
    lr: float
    batches: tuple[tuple[Member, ...], ...]
    flops: float = 0.0
    elapsed: float = 0.0
    kept: tuple[int, ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        """All of them."""
        return tuple(chain.from_iterable(self.batches))

    @property
    def clients(self) -> tuple[int, ...]:
        """Their numbers."""
        return tuple(member.client for member in self.members)

    def of(self, clients: Collection[int]) -> GroupTask:
        """The same for some of them."""
        cut = (tuple(m for m in batch if m.client in clients) for batch in self.batches)
        return replace(self, batches=tuple(batch for batch in cut if batch))


@dataclass(frozen=True, eq=False)
class BroadcastBytes:
    """A round's broadcast: one payload for all, and one a client where the algorithm asks for it.

    `differences` are bytes of what stands for the common payload where a client has a broadcast already, by
    the round of its last committed state.
    """

    round: int
    common: bytes
    personal: Mapping[int, bytes] = field(default_factory=dict)
    differences: Mapping[int, int] = field(default_factory=dict)

    def size(self, member: Member | PanelMember) -> int:
        """Bytes that a client receives."""
        common = self.differences.get(member.last, len(self.common))
        return common + len(self.personal.get(member.client, b""))


@dataclass(frozen=True, eq=False)
class GroupSums:
    """A group's updates, already summed where they arose, and whose they were."""

    round: int
    group: int
    accepted: tuple[int, ...]
    partial: Partial


@dataclass(frozen=True, eq=False)
class Envelope:
    """One update on its way to the aggregator.

    `remembered` is the server's memory of the client: the simulation keeps it in the client's record,
    where both sides read it, and it costs no bytes.
    """

    client: int
    weights: Weights
    payload: bytes
    remembered: Mapping[str, Mask]


@dataclass(frozen=True, eq=False)
class GroupPayloads:
    """A group's updates one by one, for a rule that needs them all."""

    round: int
    group: int
    lr: float
    envelopes: tuple[Envelope, ...]


@dataclass(frozen=True)
class LayerReport:
    """What one layer sent, and what is kept of it for inference."""

    layer: str
    channels: int
    channels_kept: int
    inference_channels_kept: int | None
    values: int
    bytes: int


@dataclass(frozen=True)
class SelectionReport:
    """What a selection came to.

    Attributes:
        seconds: that it took.
        flops_share: of the dense network's, of what is kept for inference.
        reward: accuracy of what is kept on the client's validation sample, if it was scored.
        evaluations: networks that were scored for the decision.
    """

    seconds: float
    flops_share: float | None
    reward: float | None
    evaluations: int


@dataclass(frozen=True)
class ClientReport:
    """What one client's round cost and gave; `status` is "pending" until the verdict is known.

    `samples` is n_i; `processed` counts the samples of all epochs; `times` are simulated seconds;
    `has_update` is False for a client whose training diverged: it has nothing to send;
    `update_norm` is the L2 norm of what it sent, `control_norm` that of the variate c_i it began with.
    """

    client: int
    status: str
    reason: str = ""
    samples: int = 0
    steps: int = 0
    train_loss: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    has_update: bool = True
    density: float | None = None
    processed: int = 0
    times: Times | None = None
    seconds: float = 0.0
    actor: str = ""
    after_local: Score | None = None
    after_global: Score | None = None
    inference_local: Score | None = None
    selection: SelectionReport | None = None
    update_norm: float | None = None
    control_norm: float | None = None
    layers: tuple[LayerReport, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether the update is in the round's sums."""
        return self.status in ("accepted", "clipped")


@dataclass(frozen=True)
class Drift:
    """How far the clients of a round pull apart.

    Attributes:
        cosine: of their updates with the sum of them, see `aggregation.masked.Total`.
        control_norm: the L2 norm of the server's control variate c after the round.
    """

    cosine: float | None = None
    control_norm: float | None = None


@dataclass(frozen=True)
class StepReport:
    """The aggregator's verdicts, where it judged, its time, and how far clients pull apart."""

    round: int
    verdicts: Mapping[int, Verdict]
    seconds: float
    drift: Drift = Drift()


@dataclass(frozen=True)
class RoundOutcome:
    """A round's reports, ordered by client, and the seconds of its phases.

    Training counts from when the driver turned to the round: one that began early shows less.
    """

    clients: tuple[ClientReport, ...]
    seconds_train: float
    seconds_aggregate: float
    drift: Drift = Drift()


@dataclass(frozen=True)
class Losses:
    """Training losses of the models that some clients would receive now, and what telling them cost."""

    values: Mapping[int, float]
    bytes_down: Mapping[int, int]


@dataclass(frozen=True)
class PanelMember:
    """One client of the evaluation panel, and the round of its last committed state."""

    client: int
    last: int = NEVER


@dataclass(frozen=True)
class EvaluationTask:
    """The panel members that one worker evaluates, and the global model if it is its turn."""

    round: int
    lr: float
    members: tuple[PanelMember, ...]
    global_model: ModelVector | None


@dataclass(frozen=True)
class Tuning:
    """What fine-tuning a copy of a client's model for its evaluation cost."""

    flops: float
    seconds: float


@dataclass(frozen=True)
class ClientScore:
    """How a client's model does; it was `trained`, is the `initial` one, or was fitted by `transfer`.

    With a `tuning`, the scores on the client's own splits are those of a fine-tuned copy.
    """

    client: int
    evaluated_as: str
    local_test: Score | None
    local_validation: Score | None
    global_test: Score | None
    tuning: Tuning | None = None


@dataclass(frozen=True)
class Evaluation:
    """An evaluation's scores, ordered by client; `global_test` is the global model's, if there is one."""

    clients: tuple[ClientScore, ...]
    global_test: Score | None
    seconds: float


@dataclass(frozen=True)
class Facts:
    """What the driver must know of a worker before the first round.

    `has_states` tells whether clients keep anything from one round to the next.
    """

    fingerprint: str
    hardware: Mapping[str, object]
    shared: int
    local: int
    has_states: bool = False
