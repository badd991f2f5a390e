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

import numpy as np

from spatl_ray import config
from spatl_ray.aggregation.masked import Accumulator, Weight
from spatl_ray.algorithms.base import CONTROL, DELTA, ClientView, Totals
from spatl_ray.parameters import Array, Arrays, Space
from spatl_ray.training.schedule import normaliser
from spatl_ray.update import Mask, Part, Update, keep


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
        return {CONTROL: keep(change, mask, self.space, self.uplink)}

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
