"""Proximal policy optimisation: by hand, on a bandit, and on a network whose reward is known."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch
from environments import environment_of
from flat_models import flatten, split_model

from spatl_ray.selection.agent import SIGMA, Agent, act, log_probability, new_agent
from spatl_ray.selection.ppo import (
    Learner,
    Step,
    clipped_loss,
    divergence,
    episode,
    mirrored,
    returns,
    search,
)


def step(reward: float, is_last: bool) -> Step:
    return Step(torch.zeros(1), np.zeros(1), 0.0, reward, is_last)


def test_returns_by_hand() -> None:
    """Two episodes: the second one's rewards do not reach the first."""
    steps = [step(1, False), step(2, False), step(4, True), step(8, False), step(16, True)]
    assert returns(steps, 0.5) == [1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4, 8 + 0.5 * 16, 16]
    assert returns(steps[:3], 1.0) == [7, 6, 4]


def test_the_clip_by_hand() -> None:
    """Ratios 1.5 and 0.5 with both signs of the advantage: it binds only where the gain would grow."""
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 1.0])
    before = torch.tensor([0.3, -0.1, 0.0, 2.0, 1.0])
    now = before + ratios.log()
    by_hand = [1.2 * 2, 1.5 * -2, 0.5 * 2, 0.8 * -2, 1.1]
    assert float(clipped_loss(now, before, advantages)) == pytest.approx(-sum(by_hand) / 5)


def test_log_probabilities_differ_as_those_of_a_gaussian() -> None:
    actions, means = torch.tensor([[0.5, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    normal = torch.distributions.Normal(means, SIGMA)
    expected = normal.log_prob(actions).sum(dim=1)
    found = log_probability(actions, means, SIGMA)
    assert float(found[0] - found[1]) == pytest.approx(float(expected[0] - expected[1]))


def test_the_divergence_is_that_of_two_gaussians() -> None:
    means = torch.tensor([[0.5, -1.0], [0.25, 0.0]])
    policy, prior = (torch.distributions.Normal(mean, SIGMA) for mean in (means, 0 * means))
    expected = torch.distributions.kl_divergence(policy, prior).sum(dim=1).mean()
    assert float(divergence(means, SIGMA)) == pytest.approx(float(expected))


def test_a_prior_keeps_an_agent_near_equal_ratios() -> None:
    """Means that only the prior moves come back; with it, a gain has to outweigh them."""
    environment = environment_of()
    seen, topology = environment.start(), environment.topology
    sizes = []
    for prior in (0.0, 0.1, 10.0):
        agent, generator = new_agent(0), np.random.default_rng(0)
        learner = Learner(agent, True, 3e-3, prior)
        for _ in range(10):
            steps = []
            for noise in generator.standard_normal((16, environment.layers)):
                action, chance, _ = act(agent, seen, topology, noise)
                reward = -float(np.square(action - 0.6).mean())
                steps.append(Step(seen, action, chance, reward, is_last=True))
            learner.update(steps, topology)
        sizes.append(float(np.abs(act(agent, seen, topology, None)[0]).mean()))
    assert sizes[0] > 1.2 * sizes[1] > sizes[2] * 2


@pytest.mark.parametrize("only_head", [False, True])
def test_updates_improve_a_bandit_with_a_known_best_action(only_head: bool) -> None:
    """The reward falls with the distance from an action that differs from layer to layer."""
    environment = environment_of(flatten(split_model("mlp", hidden=[8, 8, 8])))
    seen, topology = environment.start(), environment.topology
    best = np.where(np.arange(environment.layers) % 2, 0.6, -0.6)
    agent = new_agent(0)
    learner, generator = Learner(agent, only_head, 3e-3), np.random.default_rng(0)

    def distance() -> float:
        return float(np.square(act(agent, seen, topology, None)[0] - best).mean())

    before = distance()
    for _ in range(20):
        steps = []
        for noise in generator.standard_normal((16, environment.layers)):
            action, chance, _ = act(agent, seen, topology, noise)
            reward = -float(np.square(action - best).mean())
            steps.append(Step(seen, action, chance, reward, is_last=True))
        learner.update(steps, topology)
    assert distance() < 0.8 * before


def test_only_the_head_changes_when_it_is_fine_tuned() -> None:
    agent, environment = new_agent(0), environment_of()
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    generator = np.random.default_rng(0)
    search(agent, Learner(agent, only_head=True), environment, generator, episodes=4)
    changed = {n for n, value in agent.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {name for name in before if name.startswith("actor.")}


def test_a_search_keeps_the_best_it_tried() -> None:
    tried = []

    def accuracy(pruned: object) -> float:
        tried.append((float(pruned.ratios[0]), pruned))  # type: ignore[attr-defined]
        return tried[-1][0]

    agent, environment = new_agent(0), environment_of(accuracy=accuracy)
    learner = Learner(agent, only_head=True)
    found = search(agent, learner, environment, np.random.default_rng(1), episodes=6)
    assert found.evaluations == len(tried) == 8
    assert found.accuracy == max(value for value, _ in tried)
    assert any(found.pruned is pruned for value, pruned in tried if value == found.accuracy)
    assert len(found.rewards) == 6


def test_a_search_is_the_same_for_the_same_generator() -> None:
    found = []
    for seed in (3, 3, 4):
        agent = new_agent(0)
        learner = Learner(agent, only_head=True)
        found.append(
            search(agent, learner, environment_of(), np.random.default_rng(seed), 4).rewards
        )
    assert found[0] == found[1] != found[2]


def test_noise_comes_in_mirrored_pairs() -> None:
    environment = environment_of(steps=2)
    noise = list(islice(mirrored(environment, np.random.default_rng(0)), 4))
    assert noise[0].shape == (2, environment.layers)
    assert np.array_equal(noise[0], -noise[1])
    assert np.array_equal(noise[2], -noise[3])
    assert not np.array_equal(noise[0], noise[2])


def test_an_episodes_undiscounted_return_is_the_last_accuracy() -> None:
    environment = environment_of(steps=3)
    noise = np.random.default_rng(0).standard_normal((3, environment.layers))
    steps, pruned = episode(Agent(), environment, noise, SIGMA)
    assert [each.is_last for each in steps] == [False, False, True]
    assert math.isclose(sum(each.reward for each in steps), pruned.ratios[0])
    assert pruned.share <= 0.6
