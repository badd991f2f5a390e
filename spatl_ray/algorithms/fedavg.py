"""McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-efficient learning of deep
networks from decentralized data", AISTATS 2017, algorithm 1."""

from __future__ import annotations

from spatl_ray import config
from spatl_ray.algorithms.base import Algorithm


class FedAvg(Algorithm):
    """x+ = x + server_lr * sum_S w_i (y_i - x): everything is shared."""

    def __init__(self, options: config.FedAvg) -> None:
        self.server_lr = options.server_lr

    def is_shared(self, part: str) -> bool:
        """All parts are shared."""
        return True
