"""Arivazhagan, Aggarwal, Singh, Choudhary, "Federated learning with personalization layers", 2019
(arXiv 1912.00818), algorithms 1 and 2."""

from __future__ import annotations

from spatl_ray import config
from spatl_ray.algorithms.shared_predictor import SharedPredictor
from spatl_ray.models.split import PREDICTOR


class FedPer(SharedPredictor):
    """FedAvg of the encoder; the predictor is trained with it and never leaves its client."""

    def __init__(self, options: config.FedPer) -> None:
        self.server_lr = options.server_lr
        self.has_shared_predictor = options.shared_predictor
        self.both_train = options.shared_trains_encoder

    def is_shared(self, part: str) -> bool:
        """All but the predictor."""
        return part != PREDICTOR
