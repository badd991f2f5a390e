"""Yu, Nguyen, Abebe, Qian, Anwar, Jannesari, "SPATL: Salient parameter aggregation and transfer
learning for heterogeneous federated learning", SC22 (arXiv 2111.14345), section IV.

What differs from the paper: the control variates use the normalising sum a_i instead of an
unexplained factor, and their change is derived from the update, so that it costs no bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from spatl_ray import config
from spatl_ray.algorithms.base import BUFFERS, CONTROL, DELTA, ClientView, Proposal, Setting
from spatl_ray.algorithms.control import Controlled
from spatl_ray.algorithms.shared_predictor import SharedPredictor
from spatl_ray.arrays import Bits
from spatl_ray.errors import ConfigError
from spatl_ray.models.split import PREDICTOR
from spatl_ray.parameters import Array, Arrays, ModelVector
from spatl_ray.selection.candidate import Candidate
from spatl_ray.selection.registry import make_selector
from spatl_ray.selection.selector import Selection, Selector
from spatl_ray.training.local import LocalResult
from spatl_ray.update import WHOLE, ClientState, Mask, Parts, Update, channel_mask, keep
from spatl_ray.wire.codec import encode

RESIDUAL = "residual"
SELECTED = "selected"
TURN = "mask_turn"
"""How many of the client's updates that counted had its last mask."""


class Spatl(SharedPredictor, Controlled):
    """Salient parameters of a shared encoder travel; the predictor is local; gradients are controlled.

    The three parts are switches: `selection`, `transfer` (the local predictor) and `control`.
    """

    def __init__(self, options: config.Spatl) -> None:
        self.options = options
        self.server_lr = options.server_lr
        self.denominator = options.denominator
        self.control_options = options.control
        self.has_shared_predictor = options.shared_predictor
        self.both_train = options.shared_trains_encoder

    def is_shared(self, part: str) -> bool:
        """All but the predictor; with `transfer` off, all."""
        return not (self.options.transfer and part == PREDICTOR)

    def bind(self, setting: Setting) -> None:
        """Make the selector for the shared parameters."""
        super().bind(setting)
        o, space = self.options, self.layout.shared
        if not space.size:
            raise ConfigError(
                "algorithm.name must be local_only for a model without shared parameters, got "
                "'spatl': the encoder has none and the predictor is local"
            )
        self.selector: Selector | None = None
        if o.selection:
            self.selector = make_selector(o, space, setting.model, setting.spec)

    def start_client(self, model: ModelVector) -> Arrays:
        """The local predictor, c_i = 0, no residual, no mask sent yet."""
        state = dict(super().start_client(model))
        if self.options.error_feedback:
            state[RESIDUAL] = np.zeros_like(model.parameters[: self.layout.shared.size])
        if self.selector is not None:
            state.update(self.selector.start())
            state[SELECTED] = np.zeros(self.layout.shared.channels, dtype=np.uint8)
            if self.options.mask_every > 1:
                state[TURN] = np.zeros(1, dtype=np.int64)
        return state

    def propose(self, view: ClientView, results: Sequence[LocalResult]) -> Proposal:
        """The salient part of the update, and the local state."""
        (result,) = results
        moved = self.movement(view, result.end)
        update = moved + view.state[RESIDUAL] if self.options.error_feedback else moved
        parts_of = partial(self._parts, view, result, moved, update)
        start = time.perf_counter()
        selection = self._select(view, result.end, update, parts_of)
        seconds = time.perf_counter() - start
        parts = parts_of(WHOLE if selection is None else channel_mask(selection.travel))
        private = self.own(result.end)
        if self.options.error_feedback:
            private[RESIDUAL] = update
        if selection is None:
            return Proposal(parts, private)
        private.update({**selection.state, SELECTED: selection.travel.astype(np.uint8)})
        return Proposal(parts, private, selection, seconds)

    def _parts(
        self, view: ClientView, result: LocalResult, moved: Array, update: Array, mask: Mask
    ) -> Parts:
        """What is sent with a mask.

        Args:
            moved: y - x of this round, shape (shared.size,).
            update: the same, with the residual if it is fed back.
        """
        buffers = mask if self.options.buffers == "selected" else WHOLE
        parts = self.moved(view, result.end, mask, buffers)
        parts.update(self.variate(view, moved, result.steps, mask))
        if self.options.error_feedback:
            kind = self.setting.uplink
            parts[DELTA] = keep(update, mask, self.layout.shared, kind, view.rounding(kind))
        return parts

    def _select(
        self,
        view: ClientView,
        end: ModelVector,
        update: Array,
        parts_of: Callable[[Mask], Parts],
    ) -> Selection | None:
        """The selector's decision, or None if all channels travel."""
        if self.selector is None:
            return None

        def bytes_of(travel: Bits) -> int:
            return self._encoded_size(view, parts_of(channel_mask(travel)))

        selection = self.selector.select(self._candidate(view, end, update, bytes_of))
        return selection if TURN not in view.state else self._repeated(view, selection, bytes_of)

    def _repeated(
        self, view: ClientView, selection: Selection, bytes_of: Callable[[Bits], int]
    ) -> Selection:
        """The selection, with the client's last mask in it unless it is time for a new one."""
        turn, last = int(view.state[TURN][0]), view.state[SELECTED] != 0
        budget = view.budget_bytes_up
        repeats = 0 < turn < self.options.mask_every
        repeats = repeats and (budget is None or bytes_of(last) <= budget)
        state = {**selection.state, TURN: np.array([turn + 1 if repeats else 1])}
        return replace(selection, travel=last if repeats else selection.travel, state=state)

    def inference(
        self, view: ClientView, model: ModelVector, episodes: int = 0
    ) -> Selection | None:
        """The selector's decision on a model that is only used: nothing of it is sent."""
        if self.selector is None or not (self.options.agent or self.options.inference):
            return None
        free = replace(view, budget_bytes_up=None)
        candidate = self._candidate(free, model, self.movement(view, model), bytes_of=None)
        return self.selector.select(replace(candidate, episodes=episodes))

    @property
    def flops_floor(self) -> float:
        """Of the selector."""
        return 0.0 if self.selector is None else self.selector.flops_floor

    def _candidate(
        self,
        view: ClientView,
        end: ModelVector,
        update: Array,
        bytes_of: Callable[[Bits], int] | None,
    ) -> Candidate:
        """What the selector decides on."""
        return Candidate(
            client=view.client,
            round=view.round,
            space=self.layout.shared,
            model=end,
            update=update,
            state=view.state,
            validate=view.validate,
            generator=view.generator("selection"),
            budget_bytes=view.budget_bytes_up,
            budget_flops=view.budget_flops,
            bytes_of=bytes_of,
            gradient_of=view.gradient_of,
        )

    def _encoded_size(self, view: ClientView, parts: Parts) -> int:
        """Bytes of the client's update with these parts; those of its counts do not depend on them."""
        update = Update(view.round, view.client, steps=0, samples=view.samples, parts=parts)
        return len(encode(update, self.spaces(), self.remembered(view.state)))

    def remembered(self, state: ClientState) -> Mapping[str, Mask]:
        """The channels of the client's last accepted update."""
        if SELECTED not in state or not state[SELECTED].any():
            return {}
        mask = channel_mask(state[SELECTED] != 0)
        return dict.fromkeys((DELTA, BUFFERS, CONTROL), mask)

    def commit(self, view: ClientView, proposal: Proposal, update: Update) -> ClientState:
        """The private state with the new c_i, and the residual less what was sent."""
        state = dict(super().commit(view, proposal, update))
        if self.options.error_feedback:
            sent = update.parts[DELTA].dense(self.layout.shared, np.float64)
            state[RESIDUAL] = (state[RESIDUAL] - sent).astype(self.setting.training.dtype)
        return state
