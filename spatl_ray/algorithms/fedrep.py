"""Collins, Hassani, Mokhtari, Shakkottai, "Exploiting shared representations for personalized federated
learning", ICML 2021, algorithm 1 (FedRep), with epochs of SGD as in its section 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spatl_ray import config
from spatl_ray.algorithms.base import ClientView
from spatl_ray.algorithms.fedper import FedPer
from spatl_ray.models.split import ENCODER, PREDICTOR
from spatl_ray.training.local import LocalTask, Phase


class FedRep(FedPer):
    """FedPer whose head is trained first, on the received body; then the body, under the new head.

    What is frozen is in evaluation mode: the head is fitted under the body's running statistics. Column
    `flops` counts a head's epoch as a whole pass, which is about three times what it costs.
    """

    def __init__(self, options: config.FedRep) -> None:
        self.server_lr = options.server_lr
        self.phases = (
            Phase(frozenset({PREDICTOR}), epochs=options.head_epochs),
            Phase(frozenset({ENCODER})),
        )

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        """Averaging's task in two phases."""
        (task,) = super().tasks(view)
        return (replace(task, phases=self.phases),)
