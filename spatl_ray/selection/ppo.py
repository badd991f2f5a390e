"""Proximal policy optimisation (Schulman et al., 2017, arXiv 1707.06347) of the selection agent.

The policy's standard deviation is fixed, so that its entropy is a constant and needs no bonus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from spatl_ray.selection.agent import SIGMA, Agent, act, log_probability
from spatl_ray.selection.environment import PruningEnvironment
from spatl_ray.selection.features import Topology
from spatl_ray.selection.pruning import Pruned, Values

GAMMA = 0.99
CLIP = 0.2
EPOCHS = 10
LEARNING_RATE = 3e-4
VALUE_WEIGHT = 0.5
"""The published settings (Yu et al., SC22)."""

HEAD_LEARNING_RATE = 1e-3
"""Where the head alone is trained, for a hundred episodes at most: with 3e-4 it hardly moves in them."""

UPDATE_EVERY = 10
"""Steps between two updates."""


@dataclass(frozen=True, eq=False)
class Step:
    """One decision and what came of it.

    Attributes:
        seen: features, shape (nodes, FEATURES).
        action: shape (layers,).
        log_probability: of the action when it was taken.
        reward: of this step.
        is_last: whether its episode ended with it.
    """

    seen: Tensor
    action: Values
    log_probability: float
    reward: float
    is_last: bool


def returns(steps: Sequence[Step], gamma: float = GAMMA) -> list[float]:
    """G_k = r_k + gamma G_{k+1} within each episode.

    Args:
        steps: whole episodes, one behind the other.
        gamma: discount.
    """
    found, following = [], 0.0
    for step in reversed(steps):
        following = step.reward + gamma * (0.0 if step.is_last else following)
        found.append(following)
    return found[::-1]


class Learner:
    """Improves an agent.

    Args:
        agent: whom.
        only_head: train the actor's head alone; graph network and critic stay.
        learning_rate: of Adam; None takes LEARNING_RATE, and HEAD_LEARNING_RATE for the head alone.
        prior: weight of the divergence from equal ratios: what is learnt on some networks only then
            goes far where it pays on all of them.
        sigma: standard deviation of the actions that it learns from.
    """

    def __init__(
        self,
        agent: Agent,
        only_head: bool,
        learning_rate: float | None = None,
        prior: float = 0.0,
        sigma: float = SIGMA,
    ) -> None:
        self.agent = agent
        self.only_head = only_head
        self.prior = prior
        self.sigma = sigma
        parameters = agent.actor.parameters() if only_head else agent.parameters()
        rate = HEAD_LEARNING_RATE if only_head else LEARNING_RATE
        self.optimizer = torch.optim.Adam(parameters, learning_rate or rate)

    def update(self, steps: Sequence[Step], topology: Topology) -> None:
        """Ten epochs over all steps, which were taken on one network by the agent as it is.

            minimise -mean min(rho A, clip(rho, 1 - CLIP, 1 + CLIP) A) + VALUE_WEIGHT mean (V - G)^2
                     + prior mean |mu|^2 / (2 sigma^2)

        with the advantage A = G - V, brought to mean 0 and standard deviation 1. The last term is the
        Kullback-Leibler divergence of the policy from N(0, sigma^2).

        Args:
            steps: whole episodes.
            topology: of the network.
        """
        seen = torch.stack([step.seen for step in steps])
        actions = torch.from_numpy(np.stack([step.action for step in steps])).float()
        before = torch.tensor([step.log_probability for step in steps])
        gains = torch.tensor(returns(steps))
        with torch.no_grad():
            frozen = self.agent.embed(seen, topology)
            advantages = _standardised(gains - self.agent.values(frozen))
        with torch.enable_grad():
            for _ in range(EPOCHS):
                embedding = frozen if self.only_head else self.agent.embed(seen, topology)
                means = self.agent.means(embedding, topology)
                loss = clipped_loss(log_probability(actions, means, self.sigma), before, advantages)
                loss = loss + self.prior * divergence(means, self.sigma)
                if not self.only_head:
                    errors = (self.agent.values(embedding) - gains) ** 2
                    loss = loss + VALUE_WEIGHT * errors.mean()
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()


def clipped_loss(now: Tensor, before: Tensor, advantages: Tensor) -> Tensor:
    """-mean min(rho A, clip(rho, 1 - CLIP, 1 + CLIP) A) with rho = exp(now - before).

    Args:
        now: log probabilities of the actions, shape (batch,).
        before: the same when they were taken.
        advantages: shape (batch,).
    """
    ratio = torch.exp(now - before)
    bounded = ratio.clamp(1 - CLIP, 1 + CLIP)
    return -torch.minimum(ratio * advantages, bounded * advantages).mean()


def divergence(means: Tensor, sigma: float) -> Tensor:
    """KL(N(means, sigma^2) || N(0, sigma^2)) = |means|^2 / (2 sigma^2), the mean over a batch.

    Args:
        means: shape (batch, layers).
    """
    return -log_probability(torch.zeros_like(means), means, sigma).mean()


def _standardised(values: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1; zeros if all are equal."""
    return (values - values.mean()) / (values.std(unbiased=False) + 1e-6)


def mirrored(environment: PruningEnvironment, generator: np.random.Generator) -> Iterator[Values]:
    """The noise of one episode after the other, shape (steps, layers): standard normal, then its mirror.

    The mirrored one of a pair tells the direction of what the other one changed.
    """
    while True:
        noise = generator.standard_normal((environment.steps, environment.layers))
        yield noise
        yield -noise


def episode(
    agent: Agent, environment: PruningEnvironment, noise: Values, sigma: float
) -> tuple[list[Step], Pruned]:
    """One episode with actions at random around the agent's; its steps, and what it kept.

    Args:
        agent: who acts.
        environment: of the network.
        noise: standard normal numbers, shape (steps, layers).
        sigma: standard deviation of an action.
    """
    seen, steps = environment.start(), list[Step]()
    while not environment.is_over:
        action, chance, _ = act(agent, seen, environment.topology, noise[len(steps)], sigma)
        following, reward, pruned = environment.step(action)
        steps.append(Step(seen, action, chance, reward, environment.is_over))
        seen = following
    return steps, pruned


@dataclass(frozen=True, eq=False)
class Found:
    """The best of a search.

    Attributes:
        pruned: what is kept.
        accuracy: its reward.
        rewards: accuracy at the budget of each episode, in order.
        evaluations: how many networks were scored.
    """

    pruned: Pruned
    accuracy: float
    rewards: tuple[float, ...]
    evaluations: int


def search(
    agent: Agent,
    learner: Learner,
    environment: PruningEnvironment,
    generator: np.random.Generator,
    episodes: int,
    known: Sequence[Pruned] = (),
) -> Found:
    """Fine-tune an agent on one network, and take the best that was tried, its own choices included.

    It is updated whenever UPDATE_EVERY steps have come together, and at the end. Its mean action is tried
    at the start and at the end, so that the search tries `episodes` + 2 times, and what is known.

    Args:
        agent: whom.
        learner: who trains it.
        environment: of the network.
        generator: of the actions.
        episodes: number of them.
        known: what an earlier search found.
    """
    tried = [(pruned, environment.score(pruned)) for pruned in known]
    tried.append(_own(agent, environment))
    rewards, waiting = [], list[Step]()
    for index, noise in enumerate(islice(mirrored(environment, generator), episodes)):
        steps, pruned = episode(agent, environment, noise, learner.sigma)
        accuracy = sum(step.reward for step in steps)
        rewards.append(accuracy)
        tried.append((pruned, accuracy))
        waiting += steps
        if len(waiting) >= UPDATE_EVERY or index == episodes - 1:
            learner.update(waiting, environment.topology)
            waiting = []
    tried.append(_own(agent, environment))
    best, accuracy = max(reversed(tried), key=lambda each: each[1])
    evaluations = len(known) + episodes * environment.steps + 2
    return Found(best, accuracy, tuple(rewards), evaluations)


def _own(agent: Agent, environment: PruningEnvironment) -> tuple[Pruned, float]:
    """What the agent's mean action keeps, and its accuracy."""
    pruned = environment.decide(lambda seen: act(agent, seen, environment.topology, None)[0])
    return pruned, environment.score(pruned)
