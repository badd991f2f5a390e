"""What an algorithm is: state in, state out, and only what differs from weighted averaging.

A round, as the engine runs it:

    server                             client i
    broadcast(server)   -- bytes -->   tasks(view)           what to train
                                       ... local training ...
                                       propose(view, ends)   update and private state
    judge(decoded)      <-- bytes --
    terms(decoded)                     commit(view, proposal, decoded)   if the verdict is not "rejected"
    sums over accumulators
    step(server, totals, accepted)

`terms` and `commit` see the same decoded (and, if clipped, scaled) update, so server and client
never disagree about what was sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spatl_ray import seeding
from spatl_ray.aggregation.masked import Accumulator, Denominator, Total
from spatl_ray.arrays import Bits
from spatl_ray.config import Training
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.models.split import SplitModel
from spatl_ray.parameters import Array, Arrays, Layout, ModelVector, Space
from spatl_ray.quantised import BITS
from spatl_ray.selection.selector import Selection
from spatl_ray.training.evaluate import Validate
from spatl_ray.training.local import LocalResult, LocalTask
from spatl_ray.update import WHOLE, ClientState, Mask, Part, Parts, Update, keep

MODEL = "model"
DELTA = "delta"
BUFFERS = "buffers"
CONTROL = "control"
LOCAL = "local"
LOCAL_BUFFERS = "local_buffers"

Totals = Mapping[str, Total]


@dataclass(frozen=True, eq=False)
class Setting:
    """What an algorithm knows of its run.

    Attributes:
        model: the module and its parts.
        spec: of the data.
        layout: of the model, by the algorithm's own roles.
        training: local training's settings.
        clients: number N of all clients.
        uplink: value type of updates.
        downlink: value type of broadcasts.
        control: value type of control variates in them; None takes `downlink`.
        seed: the experiment's.
    """

    model: SplitModel
    spec: SampleSpec
    layout: Layout
    training: Training
    clients: int
    uplink: str
    downlink: str
    seed: int
    control: str | None = None


@dataclass(frozen=True, eq=False)
class ClientView:
    """What one client sees in one round.

    Attributes:
        lr: learning rate of the round.
        samples: its training samples n_i.
        received: the decoded broadcast (its personal part included) by part name, in training dtype.
        state: its committed state.
        validate: scores a model on its own validation split, or on a seeded sample of it; None if that
            is empty.
        seed: the experiment's; `generator` draws from it.
        budget_bytes_up: bytes that it may send in a round, or None.
        budget_flops: share of the dense model's inference FLOPs that it can afford, or None.
        gradient_of: gradient of the training loss at a model, over its parameters, on a seeded sample
            of its training split.
    """

    client: int
    round: int
    lr: float
    samples: int
    received: Arrays
    state: ClientState
    validate: Validate
    seed: int
    budget_bytes_up: float | None = None
    budget_flops: float | None = None
    gradient_of: Callable[[ModelVector], Array] | None = None

    def generator(self, stream: str) -> np.random.Generator:
        """Randomness of this client in this round; `stream` says what it is for."""
        return seeding.generator(self.seed, stream, self.round, self.client)

    def rounding(self, value_type: str, what: str = DELTA) -> np.random.Generator | None:
        """For stochastic rounding of a part of the update; None if its values are not rounded so."""
        return self.generator(f"rounding, {what}") if value_type in BITS else None


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a client would send, and what it would keep if the update is accepted.

    Attributes:
        parts: the update's masked vectors.
        private: its new state, before `commit` adds what depends on the decoded update.
        selection: which channels travel and are kept for inference, if the algorithm selects some.
        seconds_selection: that it took.
    """

    parts: Parts
    private: Arrays
    selection: Selection | None = None
    seconds_selection: float | None = None

    @property
    def inference(self) -> Bits | None:
        """Channels kept for inference, if the algorithm decides on them."""
        return None if self.selection is None else self.selection.inference


class Algorithm(ABC):
    """Base of all algorithms: weighted averaging of what is shared.

    Subclasses say what is shared, and override what they do otherwise.
    """

    denominator: Denominator = "senders"
    server_lr: float = 1.0

    @abstractmethod
    def is_shared(self, part: str) -> bool:
        """Whether a model part ("encoder", "predictor", ...) is shared; otherwise it is local."""

    def extend(self, model: SplitModel) -> SplitModel:
        """The model this algorithm trains: the given one, or one with parts added."""
        return model

    def bind(self, setting: Setting) -> None:
        """Take the run's setting; called once, before anything else but the two hooks above.

        Raises:
            ConfigError: the algorithm cannot run in this setting.
        """
        self.setting = setting
        self.layout = setting.layout

    # --- messages -------------------------------------------------------------------------------

    def spaces(self) -> Mapping[str, Space]:
        """The flat vectors that messages may carry, by part name."""
        shared, buffers = self.layout.shared, self.layout.shared_buffers
        return {MODEL: shared, DELTA: shared, CONTROL: shared, BUFFERS: buffers}

    def broadcast(self, server: Arrays) -> Parts:
        """What every client receives."""
        spaces = self.spaces()
        downlink = self.setting.downlink
        kinds = {BUFFERS: self.setting.training.dtype, CONTROL: self.setting.control or downlink}
        sent = [name for name in server if name in spaces and spaces[name].size]
        return {
            name: keep(server[name], WHOLE, spaces[name], kinds.get(name, downlink))
            for name in sent
        }

    def personal(self, server: Arrays, client: int) -> Parts:
        """What one client receives on top of the broadcast; no parts, no bytes."""
        return {}

    def receive(self, parts: Parts, state: ClientState) -> Arrays:
        """A client's decoded broadcast as dense vectors in training dtype.

        Args:
            parts: of the common and the personal payload together.
            state: the client's.
        """
        spaces = self.spaces()
        dtype = np.dtype(self.setting.training.dtype)
        return {name: part.dense(spaces[name], dtype) for name, part in parts.items()}

    def started_from(self, server: Arrays, parts: Parts, client: int) -> Arrays:
        """What the server knows that a client started from, for rules that need every update.

        An algorithm whose `receive` uses the client's state overrides this.

        Args:
            server: its arrays.
            parts: of the client's broadcast, as decoded.
            client: which one.
        """
        return self.receive(parts, {})

    # --- state ----------------------------------------------------------------------------------

    def start_server(self, model: ModelVector) -> Arrays:
        """The server's arrays before round 0: those named like a message part are broadcast."""
        shared, buffers = self.layout.shared.size, self.layout.shared_buffers.size
        return {MODEL: model.parameters[:shared].copy(), BUFFERS: model.buffers[:buffers].copy()}

    def start_client(self, model: ModelVector) -> Arrays:
        """The state of a client that never trained: what is local in the initial model."""
        return self.own(model)

    def own(self, model: ModelVector) -> dict[str, Array]:
        """What is local in a model, as arrays of a client's state."""
        local = model.parameters[self.layout.shared.size :]
        buffers = model.buffers[self.layout.shared_buffers.size :]
        named = {LOCAL: local.copy(), LOCAL_BUFFERS: buffers.copy()}
        return {name: array for name, array in named.items() if array.size}

    def personal_model(self, received: Arrays, state: ClientState) -> ModelVector:
        """A client's whole model: what it received, joined with what is its own."""
        return ModelVector(
            _joined(received.get(MODEL), state.get(LOCAL)),
            _joined(received.get(BUFFERS), state.get(LOCAL_BUFFERS)),
        )

    def newcomer_model(self, received: Arrays, state: ClientState) -> ModelVector:
        """The model from which a client that never trained is fitted: its personal one."""
        return self.personal_model(received, state)

    @property
    def is_personal(self) -> bool:
        """Whether clients' models differ."""
        return self.layout.local.size + self.layout.local_buffers.size > 0

    def global_model(self, server: Arrays) -> ModelVector | None:
        """The one model of the whole federation, from the server's arrays; None if there is none."""
        return None if self.is_personal else self.personal_model(server, {})

    # --- client ---------------------------------------------------------------------------------

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        """What the client trains, one task after the other; usually one."""
        return (LocalTask(self.personal_model(view.received, view.state)),)

    def propose(self, view: ClientView, results: Sequence[LocalResult]) -> Proposal:
        """The update, and the state to keep with it, from the tasks' results."""
        end = results[0].end
        return Proposal(self.moved(view, end, WHOLE), self.own(end))

    def moved(
        self, view: ClientView, end: ModelVector, mask: Mask, buffers: Mask = WHOLE
    ) -> dict[str, Part]:
        """The movement y - x of what is shared, at the kept positions, in the uplink's value type.

        Args:
            view: the client's view.
            end: its model after local training.
            mask: of the parameters.
            buffers: the mask of those.
        """
        layout, kind = self.layout, self.setting.uplink
        parts = {}
        if layout.shared.size:
            moved, rounding = self.movement(view, end), view.rounding(kind)
            parts[DELTA] = keep(moved, mask, layout.shared, kind, rounding)
        if layout.shared_buffers.size:
            delta = end.buffers[: layout.shared_buffers.size] - view.received[BUFFERS]
            # Not in fewer bits: rounded movements of a running variance may add up below 0.
            exact = self.setting.training.dtype
            parts[BUFFERS] = keep(delta, buffers, layout.shared_buffers, exact)
        return parts

    def movement(self, view: ClientView, end: ModelVector) -> Array:
        """y - x over the shared parameters, shape (layout.shared.size,)."""
        moved: Array = end.parameters[: self.layout.shared.size] - view.received[MODEL]
        return moved

    def inference(
        self, view: ClientView, model: ModelVector, episodes: int = 0
    ) -> Selection | None:
        """What a client keeps of a whole model for inference; None if the algorithm removes nothing.

        Args:
            view: what the client sees.
            model: its whole model.
            episodes: of a search for it; 0 takes what is known.
        """
        return None

    @property
    def flops_floor(self) -> float:
        """The least budget of a client's FLOPs that `inference` can meet, of the dense network's."""
        return 0.0

    def remembered(self, state: ClientState) -> Mapping[str, Mask]:
        """Masks of the client's last accepted update, which both sides know, by part name."""
        return {}

    def commit(self, view: ClientView, proposal: Proposal, update: Update) -> ClientState:
        """The client's new state, once its decoded update was accepted."""
        return proposal.private

    # --- server ---------------------------------------------------------------------------------

    def accumulators(self) -> tuple[Accumulator, ...]:
        """The sums that `step` needs: for averaging, the movement of parameters and of buffers."""
        layout = self.layout
        spaces = {DELTA: layout.shared, BUFFERS: layout.shared_buffers}
        return tuple(
            Accumulator(name, space, denominator=self.denominator)
            for name, space in spaces.items()
            if space.size
        )

    def terms(self, update: Update, received: Arrays, lr: float) -> Parts:
        """What a decoded update adds to each accumulator, by its name.

        Args:
            update: as decoded, and scaled if it was clipped.
            received: the decoded broadcast that the client started from.
            lr: learning rate of the round.
        """
        return {name: update.parts[name] for name in (DELTA, BUFFERS) if name in update.parts}

    def step(self, server: Arrays, totals: Totals, accepted: frozenset[int]) -> Arrays:
        """The server's arrays after the round: x + server_lr * mean, buffers + mean.

        Args:
            server: its arrays before the round.
            totals: the finished accumulators by name.
            accepted: clients whose update counted: those whose new state was committed.
        """
        new = dict(server)
        if DELTA in totals:
            new[MODEL] = totals[DELTA].apply(server[MODEL], self.server_lr)
        if BUFFERS in totals:
            new[BUFFERS] = totals[BUFFERS].apply(server[BUFFERS])
        return new


def _joined(*arrays: Array | None) -> Array:
    """The arrays that exist, one behind the other."""
    there = [array for array in arrays if array is not None]
    if len(there) == 1:
        return there[0]
    return np.concatenate(there) if there else np.zeros(0, dtype=np.float32)
