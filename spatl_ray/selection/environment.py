"""The environment of the selection agent: a network is pruned to a budget and scored as it is.

State: the network's graph with real features, the ratios so far, the budget. Action: one number a
prunable layer. Reward: accuracy of the masked network without fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from spatl_ray.graphs.coupling import Scores
from spatl_ray.parameters import Array
from spatl_ray.selection.features import Features
from spatl_ray.selection.pruning import Pruned, Pruner, Values

Accuracy = Callable[[Pruned], float]
"""Accuracy in [0, 1] of the network with some channels only, on samples that no test split has."""


class PruningEnvironment:
    """Episodes that lead one network to a budget.

    With K steps, step k = 1..K must cost at most budget^(k/K) of the dense network. r_l is in
    proportion to exp(the sum of the actions a_l so far), as far as the floor and 1 allow.
    Its reward is the change of accuracy, from 0 at the start: undiscounted, an episode returns the
    accuracy at the budget.

    Args:
        pruner: of the network.
        features: of the network.
        scores: salience of the channels, shape (channels,).
        weights: the shared parameters.
        accuracy: of what is kept.
        budget: share of the dense network's cost, in (0, 1].
        steps: K.

    Raises:
        ConfigError: a budget below the floor of all layers.
    """

    def __init__(
        self,
        pruner: Pruner,
        features: Features,
        scores: Scores,
        weights: Array,
        accuracy: Accuracy,
        budget: float,
        steps: int = 1,
    ) -> None:
        self.pruner = pruner
        self.topology = features.topology
        self.budget = budget
        self.steps = steps
        self._features = features
        self._scores = scores
        self._weights = weights
        self._accuracy = accuracy
        self.layers = len(pruner.layers)
        pruner.within(scores, np.zeros(self.layers), budget)
        self.start()

    def start(self) -> Tensor:
        """Begin an episode with the dense network; what the agent sees of it."""
        self._step, self._before = 0, 0.0
        self._importance: Values = np.zeros(self.layers)
        return self._seen(np.ones(self.layers))

    def step(self, action: Values) -> tuple[Tensor, float, Pruned]:
        """Take a step.

        Args:
            action: shape (layers,).

        Returns:
            What the agent sees next, the reward, and what is kept.
        """
        pruned = self._pruned(action)
        accuracy = self._accuracy(pruned)
        reward, self._before = accuracy - self._before, accuracy
        return self._seen(pruned.ratios), reward, pruned

    @property
    def is_over(self) -> bool:
        """Whether the episode has met the budget."""
        return self._step == self.steps

    def decide(self, policy: Callable[[Tensor], Values]) -> Pruned:
        """What a policy keeps at the end of an episode; nothing is scored.

        Args:
            policy: from what is seen to an action.
        """
        seen = self.start()
        pruned = self._pruned(policy(seen))
        while not self.is_over:
            pruned = self._pruned(policy(self._seen(pruned.ratios)))
        return pruned

    def at(self, ratios: Array) -> Pruned:
        """What is kept at the budget with ratios in proportion to given ones.

        Args:
            ratios: shape (layers,), positive.
        """
        return self.pruner.within(self._scores, np.log(ratios.astype(np.float64)), self.budget)

    def score(self, pruned: Pruned) -> float:
        """Accuracy of what is kept."""
        return self._accuracy(pruned)

    def _pruned(self, action: Values) -> Pruned:
        """What is kept after one more action."""
        self._step += 1
        self._importance = self._importance + action
        budget = self.budget ** (self._step / self.steps)
        return self.pruner.within(self._scores, self._importance, budget)

    def _seen(self, ratios: Values) -> Tensor:
        return self._features.of(self._scores, self._weights, ratios, self.budget)
