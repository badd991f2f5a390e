"""Wang, Liu, Liang, Joshi, Poor, "Tackling the objective inconsistency problem in heterogeneous
federated optimization", NeurIPS 2020, equation 9."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spatl_ray import config
from spatl_ray.aggregation.masked import Accumulator
from spatl_ray.algorithms.base import DELTA, MODEL, Algorithm, Totals
from spatl_ray.parameters import Arrays, make_space
from spatl_ray.training.schedule import normaliser
from spatl_ray.update import WHOLE, Part, Parts, Update

NORMALISER = "normaliser"


class FedNova(Algorithm):
    """x+ = x + server_lr * (sum w_i a_i) * sum w_i (y_i - x) / a_i, a_i the normalising sum.

    Buffers are averaged as they are.
    """

    def __init__(self, options: config.FedNova) -> None:
        self.server_lr = options.server_lr

    def is_shared(self, part: str) -> bool:
        """All parts are shared."""
        return True

    def accumulators(self) -> tuple[Accumulator, ...]:
        """Averaging's, and the mean of a_i."""
        scalar = make_space([(NORMALISER, "", (1,), -1)])
        return (*super().accumulators(), Accumulator(NORMALISER, scalar))

    def terms(self, update: Update, received: Arrays, lr: float) -> Parts:
        """(y_i - x) / a_i, and a_i."""
        a = normaliser(update.steps, self.setting.training.momentum)
        delta = update.parts[DELTA]
        scaled = replace(delta, values=delta.values.astype(np.float64) / a)
        terms = dict(super().terms(update, received, lr))
        return {**terms, DELTA: scaled, NORMALISER: Part(WHOLE, np.array([a]))}

    def step(self, server: Arrays, totals: Totals, accepted: frozenset[int]) -> Arrays:
        """Move by the mean direction times the mean normaliser."""
        length = float(totals[NORMALISER].values[0])
        moved = totals[DELTA].apply(server[MODEL], self.server_lr * length)
        return {**super().step(server, totals, accepted), MODEL: moved}
