"""Control variates: the gradient control of SCAFFOLD and SPATL.

Server and client hold c and c_i, one value a shared parameter, both 0 at first. With p_i the
client's weight in the objective, c = sum_i p_i c_i holds at all times, up to rounding: both sides
change by the same numbers, computed from the decoded update.

References:
    Karimireddy et al., "SCAFFOLD", ICML 2020, algorithm 1, option II.
    Wang et al., NeurIPS 2020, section 4: the normalising sum a_i, which stands here for the number
    of steps, so that momentum does not inflate the variates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spatl_ray import config
from spatl_ray.aggregation.masked import Accumulator, Weight
from spatl_ray.algorithms.base import (
    CONTROL,
    DELTA,
    Algorithm,
    ClientView,
    Proposal,
    Setting,
    Totals,
)
from spatl_ray.parameters import Array, Arrays, ModelVector, Space
from spatl_ray.training.local import LocalTask
from spatl_ray.training.schedule import normaliser
from spatl_ray.update import ClientState, Mask, Part, Parts, Update, keep


class GradientControl:
    """The correction s (c - c_i) and the variates' change after a round.

    Args:
        options: rate b, strength s, and whether the change is derived or sent.
        space: of the shared parameters.
        momentum: rho of local training.
        dtype: of the variates.
    """

    def __init__(
        self, options: config.Control, space: Space, momentum: float, dtype: str, uplink: str
    ) -> None:
        self.options = options
        self.space = space
        self.momentum = momentum
        self.uplink = uplink
        self.zero: Array = np.zeros(space.size, dtype=np.dtype(dtype))

    def offset(self, view: ClientView) -> Array:
        """s (c - c_i), added to each local gradient."""
        c, own = view.received[CONTROL], view.state[CONTROL]
        return (c - own) * c.dtype.type(self.options.strength)

    def sent(self, view: ClientView, moved: Array, steps: int, mask: Mask) -> dict[str, Part]:
        """The change of c_i as a message part, if it is to be sent.

        c_i(new) = -(y - x) / (a_i lr) - s (c - c_i); the change is b (c_i(new) - c_i).

        Args:
            view: the client's view.
            moved: y - x, shape (space.size,), of this round alone.
            steps: local steps.
            mask: which positions are sent.
        """
        if self.options.variate == "derived":
            return {}
        movement = self._movement(steps, view.lr)
        c, own = (a.astype(np.float64) for a in (view.received[CONTROL], view.state[CONTROL]))
        new = -moved.astype(np.float64) / movement - self.options.strength * (c - own)
        change = (self.options.rate * (new - own)).astype(self.zero.dtype)
        rounding = view.rounding(self.uplink, CONTROL)
        return {CONTROL: keep(change, mask, self.space, self.uplink, rounding)}

    def change(self, update: Update, received: Arrays, lr: float) -> Part:
        """The change of c_i at the sent positions, as server and client both compute it.

        Derived, it is b (-c - delta / (a_i lr)).
        """
        if self.options.variate == "sent":
            return update.parts[CONTROL]
        delta = update.parts[DELTA]
        kept = delta.mask.positions(self.space)
        c = received[CONTROL] if kept is None else received[CONTROL][kept]
        movement = self._movement(update.steps, lr)
        gradient = -delta.values.astype(np.float64) / movement
        return Part(delta.mask, self.options.rate * (gradient - c.astype(np.float64)))

    def committed(self, view: ClientView, update: Update) -> Array:
        """c_i after the round; unsent positions keep their bits."""
        part = self.change(update, view.received, view.lr)
        own = view.state[CONTROL].copy()
        kept = part.mask.positions(self.space)
        where = slice(None) if kept is None else kept
        own[where] = own[where].astype(np.float64) + part.values.astype(np.float64)
        return own

    def accumulator(self) -> Accumulator:
        """sum over the cohort of p_i m_ij times the change: what c moves by."""
        return Accumulator(CONTROL, self.space, Weight.POPULATION, None)

    def step(self, server: Arrays, totals: Totals) -> Array:
        """c after the round."""
        return totals[CONTROL].apply(server[CONTROL])

    def _movement(self, steps: int, lr: float) -> float:
        """How far a constant gradient of 1 moves a parameter: a_i lr."""
        return normaliser(steps, self.momentum) * lr


class Controlled(Algorithm):
    """Base of algorithms whose local gradients may be corrected by control variates.

    `control_options` is None for a run without them; then this is plain averaging.
    """

    control_options: config.Control | None = None

    def bind(self, setting: Setting) -> None:
        """Make the control variates for the shared parameters."""
        super().bind(setting)
        options, training = self.control_options, setting.training
        self.control: GradientControl | None = None
        if options is not None:
            self.control = GradientControl(
                options, self.layout.shared, training.momentum, training.dtype, setting.uplink
            )

    def start_server(self, model: ModelVector) -> Arrays:
        """Averaging's arrays, and c = 0."""
        return {**super().start_server(model), **self._zero()}

    def start_client(self, model: ModelVector) -> Arrays:
        """Averaging's arrays, and c_i = 0."""
        return {**super().start_client(model), **self._zero()}

    def _zero(self) -> Arrays:
        return {} if self.control is None else {CONTROL: self.control.zero.copy()}

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        """Averaging's task, its gradient corrected by s (c - c_i)."""
        (task,) = super().tasks(view)
        return (task if self.control is None else replace(task, offset=self.control.offset(view)),)

    def variate(self, view: ClientView, moved: Array, steps: int, mask: Mask) -> dict[str, Part]:
        """The message part with the change of c_i, if there is one and it is sent."""
        return {} if self.control is None else self.control.sent(view, moved, steps, mask)

    def commit(self, view: ClientView, proposal: Proposal, update: Update) -> ClientState:
        """The private state with the new c_i."""
        state = dict(super().commit(view, proposal, update))
        if self.control is not None:
            state[CONTROL] = self.control.committed(view, update)
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
