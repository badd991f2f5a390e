"""Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic controlled averaging for
federated learning", ICML 2020, algorithm 1, option II."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spatl_ray import config
from spatl_ray.aggregation.masked import Accumulator
from spatl_ray.algorithms.base import (
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
from spatl_ray.parameters import Arrays, ModelVector
from spatl_ray.training.local import LocalResult, LocalTask
from spatl_ray.update import WHOLE, ClientState, Parts, Update


class Scaffold(Algorithm):
    """FedAvg with the local gradient g + c - c_i over all parameters."""

    def __init__(self, options: config.Scaffold) -> None:
        self.options = options
        self.server_lr = options.server_lr

    def is_shared(self, part: str) -> bool:
        """All parts are shared."""
        return True

    def bind(self, setting: Setting) -> None:
        """Make the control variates for the shared parameters."""
        super().bind(setting)
        training = setting.training
        self.control = GradientControl(
            self.options.control,
            self.layout.shared,
            training.momentum,
            training.dtype,
            setting.uplink,
        )

    def start_server(self, model: ModelVector) -> Arrays:
        """Averaging's arrays, and c = 0."""
        return {**super().start_server(model), CONTROL: self.control.zero.copy()}

    def start_client(self, model: ModelVector) -> Arrays:
        """Averaging's arrays, and c_i = 0."""
        return {**super().start_client(model), CONTROL: self.control.zero.copy()}

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        """Training with the gradient corrected by c - c_i."""
        (task,) = super().tasks(view)
        return (replace(task, offset=self.control.offset(view)),)

    def propose(self, view: ClientView, results: Sequence[LocalResult]) -> Proposal:
        """Averaging's update, with the variate's change if it is sent."""
        (result,) = results
        parts = self.moved(view, result.end, WHOLE)
        moved = result.end.parameters[: self.layout.shared.size] - view.received[MODEL]
        variate = self.control.sent(view, moved, result.steps, parts[DELTA].mask)
        return Proposal({**parts, **variate}, self.own(result.end))

    def commit(self, view: ClientView, proposal: Proposal, update: Update) -> ClientState:
        """The private state with the new c_i."""
        return {**proposal.private, CONTROL: self.control.committed(view, update)}

    def accumulators(self) -> tuple[Accumulator, ...]:
        """Averaging's, and the variates' change."""
        return (*super().accumulators(), self.control.accumulator())

    def terms(self, update: Update, received: Arrays, lr: float) -> Parts:
        """Averaging's, and the variates' change."""
        variate = self.control.change(update, received, lr)
        return {**super().terms(update, received, lr), CONTROL: variate}

    def step(self, server: Arrays, totals: Totals, accepted: frozenset[int]) -> Arrays:
        """Averaging's step, and c moved by the variates' change."""
        return {
            **super().step(server, totals, accepted),
            CONTROL: self.control.step(server, totals),
        }
