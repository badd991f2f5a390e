"""Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated optimization in heterogeneous networks",
MLSys 2020, algorithm 2."""

from __future__ import annotations

from collections.abc import Sequence

from spatl_ray import config
from spatl_ray.algorithms.base import MODEL, Algorithm, ClientView
from spatl_ray.training.local import LocalTask


class FedProx(Algorithm):
    """FedAvg with the local loss f_i(y) + (mu/2) ||y - x||^2."""

    def __init__(self, options: config.FedProx) -> None:
        self.server_lr = options.server_lr
        self.mu = options.mu

    def is_shared(self, part: str) -> bool:
        """All parts are shared."""
        return True

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        """Training with a proximal term around what was received."""
        start = self.personal_model(view.received, view.state)
        return (LocalTask(start, mu=self.mu, anchor=view.received[MODEL]),)
