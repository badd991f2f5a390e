"""Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic controlled averaging for
federated learning", ICML 2020, algorithm 1, option II."""

from __future__ import annotations

from collections.abc import Sequence

from spatl_ray import config
from spatl_ray.algorithms.base import ClientView, Proposal
from spatl_ray.algorithms.control import Controlled
from spatl_ray.training.local import LocalResult
from spatl_ray.update import WHOLE


class Scaffold(Controlled):
    """FedAvg with the local gradient g + c - c_i over all parameters."""

    def __init__(self, options: config.Scaffold) -> None:
        self.server_lr = options.server_lr
        self.control_options = options.control

    def is_shared(self, part: str) -> bool:
        """All parts are shared."""
        return True

    def propose(self, view: ClientView, results: Sequence[LocalResult]) -> Proposal:
        """Averaging's update, with the variate's change if it is sent."""
        (result,) = results
        variate = self.variate(view, self.movement(view, result.end), result.steps, WHOLE)
        parts = self.moved(view, result.end, WHOLE)
        return Proposal({**parts, **variate}, self.own(result.end))
