"""Yu, Nguyen, Abebe, Qian, Anwar, Jannesari, "SPATL: Salient parameter aggregation and transfer
learning for heterogeneous federated learning", SC22 (arXiv 2111.14345), section IV.

What differs from the paper: the control variates use the normalising sum a_i instead of an
unexplained factor, and their change is derived from the update, so that it costs no bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from spatl_ray import config
from spatl_ray.aggregation.masked import Accumulator
from spatl_ray.algorithms.base import (
    BUFFERS,
    CONTROL,
    DELTA,
    MODEL,
    Algorithm,
    ClientView,
    Proposal,
    Setting,
    Totals,
)
from spatl_ray.algorithms.control import GradientControl
from spatl_ray.errors import ConfigError
from spatl_ray.models.split import PREDICTOR
from spatl_ray.parameters import Array, Arrays, ModelVector
from spatl_ray.selection.selector import Candidate, FixedRatio, Selection, Selector
from spatl_ray.training.local import LocalResult, LocalTask
from spatl_ray.update import WHOLE, ClientState, Mask, Parts, Update, channel_mask, keep

RESIDUAL = "residual"
SELECTED = "selected"


class Spatl(Algorithm):
    """Salient parameters of a shared encoder travel; the predictor is local; gradients are controlled.

    The three parts are switches: `selection`, `transfer` (the local predictor) and `control`.
    """

    def __init__(self, options: config.Spatl) -> None:
        self.options = options
        self.server_lr = options.server_lr
        self.denominator = options.denominator

    def is_shared(self, part: str) -> bool:
        """All but the predictor; with `transfer` off, all."""
        return not (self.options.transfer and part == PREDICTOR)

    def bind(self, setting: Setting) -> None:
        """Make the selector and the control variates for the shared parameters."""
        super().bind(setting)
        o, space, training = self.options, self.layout.shared, setting.training
        if not space.size:
            raise ConfigError(
                "algorithm.name must be local_only for a model without shared parameters, got "
                "'spatl': the encoder has none and the predictor is local"
            )
        self.selector: Selector | None = None
        if o.selection:
            self.selector = FixedRatio(space, o.keep, o.keep_layers, o.criterion, o.inference)
        self.control: GradientControl | None = None
        if o.control is not None:
            self.control = GradientControl(
                o.control, space, training.momentum, training.dtype, setting.uplink
            )

    def _extra(self) -> dict[str, Array]:
        """State that only the switches ask for, all 0 at first."""
        zero = np.zeros(self.layout.shared.size, dtype=np.dtype(self.setting.training.dtype))
        extra = {} if self.selector is None else dict(self.selector.start())
        if self.control is not None:
            extra[CONTROL] = zero.copy()
        if self.options.error_feedback:
            extra[RESIDUAL] = zero.copy()
        if self.selector is not None:
            extra[SELECTED] = np.zeros(self.layout.shared.channels, dtype=np.uint8)
        return extra

    def start_server(self, model: ModelVector) -> Arrays:
        """Averaging's arrays, and c = 0."""
        control = {} if self.control is None else {CONTROL: self.control.zero.copy()}
        return {**super().start_server(model), **control}

    def start_client(self, model: ModelVector) -> Arrays:
        """The local predictor, c_i = 0, no residual, no mask sent yet."""
        return {**super().start_client(model), **self._extra()}

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        """Encoder and predictor trained together, the encoder's gradient corrected."""
        (task,) = super().tasks(view)
        return (task if self.control is None else replace(task, offset=self.control.offset(view)),)

    def propose(self, view: ClientView, results: Sequence[LocalResult]) -> Proposal:
        """The salient part of the update, and the local state."""
        (result,) = results
        moved = result.end.parameters[: self.layout.shared.size] - view.received[MODEL]
        update = moved + view.state[RESIDUAL] if self.options.error_feedback else moved
        selection = self._select(view, result.end, update)
        mask = WHOLE if selection is None else channel_mask(selection.travel)
        parts = self.moved(view, result.end, mask)
        parts[DELTA] = keep(update, mask, self.layout.shared, self.setting.uplink)
        if self.control is not None:
            parts.update(self.control.sent(view, moved, result.steps, mask))
        private = self.own(result.end)
        if self.options.error_feedback:
            private[RESIDUAL] = update
        if selection is not None:
            private.update({**selection.state, SELECTED: selection.travel.astype(np.uint8)})
        return Proposal(parts, private, None if selection is None else selection.inference)

    def _select(self, view: ClientView, end: ModelVector, update: Array) -> Selection | None:
        """The selector's decision, or None if all channels travel."""
        if self.selector is None:
            return None
        candidate = Candidate(
            client=view.client,
            round=view.round,
            space=self.layout.shared,
            model=end,
            update=update,
            state=view.state,
            validate=view.validate,
            generator=view.generator("selection"),
        )
        return self.selector.select(candidate)

    def remembered(self, state: ClientState) -> Mapping[str, Mask]:
        """The channels of the client's last accepted update."""
        if SELECTED not in state or not state[SELECTED].any():
            return {}
        mask = channel_mask(state[SELECTED] != 0)
        return dict.fromkeys((DELTA, BUFFERS, CONTROL), mask)

    def commit(self, view: ClientView, proposal: Proposal, update: Update) -> ClientState:
        """The private state with the new c_i, and the residual less what was sent."""
        state = dict(proposal.private)
        if self.control is not None:
            state[CONTROL] = self.control.committed(view, update)
        if self.options.error_feedback:
            sent = update.parts[DELTA].dense(self.layout.shared, np.float64)
            state[RESIDUAL] = (state[RESIDUAL] - sent).astype(self.setting.training.dtype)
        return state

    def accumulators(self) -> tuple[Accumulator, ...]:
        """Averaging's, and the variates' change."""
        control = () if self.control is None else (self.control.accumulator(),)
        return (*super().accumulators(), *control)

    def terms(self, update: Update, received: Arrays, lr: float) -> Parts:
        """Averaging's, and the variates' change."""
        terms = dict(super().terms(update, received, lr))
        if self.control is not None:
            terms[CONTROL] = self.control.change(update, received, lr)
        return terms

    def step(self, server: Arrays, totals: Totals, accepted: frozenset[int]) -> Arrays:
        """Averaging's step, and c moved by the variates' change."""
        new = dict(super().step(server, totals, accepted))
        if self.control is not None:
            new[CONTROL] = self.control.step(server, totals)
        return new
