"""A logger that counts how often it is made."""

from __future__ import annotations

from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment


class Counting(Callback):
    """Does nothing else."""

    made = 0

    def __init__(self, experiment: Experiment) -> None:
        Counting.made += 1
