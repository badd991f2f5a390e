"""Learning rates over rounds, and how far constant gradients move a model in a round."""

from __future__ import annotations

import math

from spatl_ray.config import Training


def learning_rate(training: Training, round_: int, rounds: int) -> float:
    """The learning rate of a round: constant, lr decay^t, or lr (1 + cos(pi t / T)) / 2."""
    if training.schedule == "exponential":
        return training.lr * training.decay**round_
    if training.schedule == "cosine":
        return training.lr * (1 + math.cos(math.pi * round_ / rounds)) / 2
    return training.lr


def normaliser(steps: int, momentum: float) -> float:
    """The normalising sum a_i = sum_{k=0}^{tau-1} (1 - rho^(k+1)) / (1 - rho).

    A constant gradient g moves the model by lr * a_i * g in tau steps of momentum rho; a_i = tau
    without momentum.

    Args:
        steps: tau, local steps.
        momentum: rho in [0, 1).

    References:
        Wang et al., "Tackling the objective inconsistency problem", NeurIPS 2020, section 4.
    """
    rho = momentum
    return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
