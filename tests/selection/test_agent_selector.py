"""The agent on a client: it learns in the first participations, then decides alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import candidate
from flat_models import flatten, split_model
from pruners import pruner_of

from spatl_ray import config
from spatl_ray.arrays import Bits
from spatl_ray.errors import ConfigError
from spatl_ray.models.flat import FlatModel
from spatl_ray.parameters import ModelVector
from spatl_ray.selection.agent import new_agent, save_agent
from spatl_ray.selection.agent_selector import HEAD, RATIOS, TUNED, AgentSelector
from spatl_ray.selection.candidate import Candidate
from spatl_ray.selection.selector import Selection
from spatl_ray.training.evaluate import Score

MODEL = flatten(split_model("lenet"))


class Scorer:
    """Scores a model by how many values are kept for inference; None for an empty split."""

    def __init__(self, empty: bool = False) -> None:
        self.limits: list[int | None] = []
        self.empty = empty

    def __call__(
        self, model: ModelVector, limit: int | None = None, channels: Bits | None = None
    ) -> Score | None:
        if self.empty:
            return None
        self.limits.append(limit)
        if channels is None:
            return Score(model.parameters.size, model.parameters.size, 0.0)
        kept = MODEL.layout.parameters.expand(channels)
        return Score(int(kept.sum()), model.parameters.size, 0.0)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "agent.safetensors"
    save_agent(new_agent(0), path, {})
    return str(path)


def selector(weights: str, model: FlatModel = MODEL, **options: Any) -> AgentSelector:
    agent = config.Agent(weights=weights, **{"episodes": 4, "budget": 0.6, **options})
    return AgentSelector(agent, model.layout.shared, pruner_of(model), "update", "l2")


def own(state: Any, scorer: Scorer | None = None, **fields: Any) -> Candidate:
    return candidate(MODEL, state=state, validate=scorer or Scorer(), **fields)


def test_the_head_is_tuned_in_the_first_participations_only(weights: str) -> None:
    policy = selector(weights, participations=2)
    state, evaluations, heads = policy.start(), [], [policy.start()[HEAD]]
    for round_ in range(4):
        generator = np.random.default_rng(round_)
        selection = policy.select(own(state, generator=generator))
        state = selection.state
        evaluations.append(selection.evaluations)
        heads.append(state[HEAD])
    # What the first search found is tried again in the second.
    assert evaluations == [4 + 2, 1 + 4 + 2, 0, 0]
    same = [np.array_equal(before, after) for before, after in pairwise(heads)]
    assert same == [False, False, True, True]
    assert state[TUNED].tolist() == [2]


def test_the_ratios_that_were_found_stay(weights: str) -> None:
    """They are scaled to what the client can afford now."""
    policy = selector(weights, participations=1)
    first = policy.select(own(policy.start()))
    found = first.state[RATIOS]
    assert not np.allclose(found, found[0])
    later = policy.select(own(first.state))
    assert np.array_equal(later.state[RATIOS], found)
    assert first.inference is not None
    assert later.inference is not None
    assert np.array_equal(later.inference, first.inference)
    narrower = policy.select(own(first.state, budget_flops=0.4))
    assert narrower.inference is not None
    assert not (narrower.inference & ~first.inference).any()
    assert narrower.inference_flops is not None
    assert narrower.inference_flops <= 0.4


def test_a_later_search_is_not_worse_than_what_is_known(weights: str) -> None:
    policy, rewards = selector(weights, participations=6, episodes=1), []
    state = policy.start()
    for round_ in range(6):
        selection = policy.select(own(state, generator=np.random.default_rng(round_)))
        state = selection.state
        rewards.append(selection.reward)
    assert rewards == sorted(rewards)
    assert len(set(rewards)) > 1


def test_a_decision_may_ask_for_a_search_of_its_own(weights: str) -> None:
    """Also when the participations are over, and by an agent that is never tuned."""
    policy = selector(weights, participations=1)
    first = policy.select(own(policy.start()))
    known = policy.select(own(first.state, episodes=0))
    assert (known.reward, known.evaluations) == (None, 0)
    again = policy.select(own(first.state, episodes=9, generator=np.random.default_rng(5)))
    assert again.evaluations == 1 + 9 + 2
    assert again.reward is not None
    assert first.reward is not None
    assert again.reward >= first.reward
    untuned = selector(weights, participations=0).select(own({}, episodes=9))
    assert (untuned.state, untuned.evaluations) == ({}, 9 + 2)
    none = policy.select(own(policy.start(), episodes=0))
    assert none.evaluations == 0


def test_rewards_come_from_a_sample_of_the_validation_split(weights: str) -> None:
    scorer = Scorer()
    policy = selector(weights, validation_samples=100)
    selection = policy.select(own(policy.start(), scorer))
    # The first call only asks whether there is a validation split.
    assert scorer.limits == [1] + [100] * selection.evaluations
    assert selection.reward is not None


def test_without_validation_samples_the_pre_trained_agent_decides(weights: str) -> None:
    policy = selector(weights)
    start = policy.start()
    selection = policy.select(own(start, Scorer(empty=True)))
    assert (selection.reward, selection.evaluations) == (None, 0)
    assert np.array_equal(selection.state[HEAD], start[HEAD])
    assert selection.state[TUNED].tolist() == [0]
    untuned = selector(weights, participations=0)
    assert untuned.start() == {}
    assert np.array_equal(untuned.select(own({})).travel, selection.travel)


def test_what_is_kept_is_coupled_and_within_the_least_budget(weights: str) -> None:
    policy, pruner = selector(weights), pruner_of(MODEL)
    for budget, most in ((None, 0.6), (0.45, 0.45), (0.9, 0.6)):
        selection = policy.select(own(policy.start(), budget_flops=budget))
        assert selection.inference is not None
        assert np.array_equal(pruner.coupling.closed(selection.inference), selection.inference)
        assert selection.inference_flops == pruner.flops_share(selection.inference)
        assert selection.inference_flops <= most


def test_a_decision_does_not_depend_on_other_clients(weights: str) -> None:
    """One selector serves all clients of a worker, in any order."""
    alone, shared = selector(weights), selector(weights)
    shared.select(own(shared.start(), client=1, generator=np.random.default_rng(9)))
    found: list[Selection] = [each.select(own(each.start())) for each in (alone, shared)]
    assert np.array_equal(found[0].travel, found[1].travel)
    assert np.array_equal(found[0].state[HEAD], found[1].state[HEAD])
    assert found[0].reward == found[1].reward


def test_the_ratios_of_what_travels_are_the_agents(weights: str) -> None:
    """Each layer sends as many channels as its ratio says, the ones that moved most."""
    policy = selector(weights, participations=0)
    given = own({})
    selection = policy.select(given)
    again = policy.select(replace(given, update=given.update * 2))
    assert np.array_equal(selection.travel, again.travel)
    for group in given.space.groups:
        span = slice(group.offset, group.offset + group.channels)
        assert selection.inference is not None
        assert selection.travel[span].sum() == selection.inference[span].sum()


def test_budgets_below_the_floor(weights: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^algorithm.agent.budget must be at least 0\.\d+, .*0.01"
    ):
        selector(weights, budget=0.01)
    policy = selector(weights)
    with pytest.raises(ConfigError, match=r"a budget of flops must be at least 0\.\d+"):
        policy.select(own(policy.start(), budget_flops=0.01))
