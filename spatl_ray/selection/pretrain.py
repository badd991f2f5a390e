"""Pre-training of the selection agent: it prunes trained networks over and over.

Everything that is drawn is keyed by the seed and the number of the update, so that a run that was
broken off goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from spatl_ray import seeding
from spatl_ray.config import Model, Pretraining
from spatl_ray.data.dataset import SampleSpec, digest
from spatl_ray.data.datasets import load_dataset
from spatl_ray.errors import ConfigError
from spatl_ray.graphs.trace import trace
from spatl_ray.selection.agent import Agent, act, new_agent
from spatl_ray.selection.checkpoint import (
    Checkpoints,
    arrays_of,
    load_optimizer,
    optimizer_tensors,
    tensors_of,
)
from spatl_ray.selection.environment import PruningEnvironment
from spatl_ray.selection.ppo import Learner, Step, episode, mirrored
from spatl_ray.selection.pruning import Pruner
from spatl_ray.selection.subject import Subject, accuracy_of, built, train_subject

NETWORKS = {"seed", "data", "model", "others", "training", "samples", "held_out"}
"""Options on which the trained networks depend."""

Row = dict[str, float]
Told = Callable[[str, int, int, Row], None]
"""Called with a stage (`network` or `agent`), how much of it is done, of how much, and figures."""


class Pretrainer:
    """Trains networks, then an agent that prunes them; can be stopped and gone on with.

    Args:
        options: how.
        folder: of checkpoints; those of the same options and data are gone on from.
        told: of progress.

    Raises:
        ConfigError: too few samples, or budgets that a network cannot meet.
        ModelError: a network that cannot be built or traced.

    Attributes:
        curve: a row an update: its network and budget, the accuracies of its episodes, of the agent's
            own choice after it, and of equal ratios.
        dense_accuracies: of the trained networks with all channels, on the held-out samples.
    """

    def __init__(self, options: Pretraining, folder: Path, told: Told) -> None:
        self.options = options
        self.told = told
        self.dataset = load_dataset(options.data, options.seed)
        needed, there = options.samples + options.held_out, len(self.dataset.train_y)
        if needed > there:
            raise ConfigError(
                f"samples + held_out must be at most the {there} training samples of "
                f"{self.dataset.name}, got {needed}"
            )
        for model in options.models:
            _check_floor(options, model, self.dataset.spec)
        # The network's outlives a change of how the agent learns.
        network = options.model_dump_json(include=NETWORKS)
        self.networks = Checkpoints(folder, digest(network, self.dataset.fingerprint))
        whole = options.model_dump_json()
        self.checkpoints = Checkpoints(folder, digest(whole, self.dataset.fingerprint))
        self.curve: list[Row] = []

    def run(self) -> Agent:
        """Train both; what was done before is read.

        Raises:
            ConfigError: a network or the agent diverges.
            StateError: checkpoints of other options or data, damaged ones, or no room for them.
        """
        options = self.options
        self.subjects = [self._subject(index) for index in range(len(options.models))]
        self.dense_accuracies = [_dense_accuracy(subject) for subject in self.subjects]
        agent = new_agent(options.seed)
        learner = Learner(agent, False, options.learning_rate, options.prior, options.sigma)
        self._restore(agent, learner)
        for update in range(len(self.curve), options.updates):
            self.curve.append(self._update(update, agent, learner))
            done = update + 1
            if done % options.checkpoint_every == 0 or done == options.updates:
                self._save(agent, learner)
            self.told("agent", done, options.updates, self.curve[-1])
        return agent

    def _subject(self, index: int) -> Subject:
        """A trained network."""
        before, count = index * self._epochs, len(self.options.models)

        def epoch_done(done: int, epochs: int, loss: float) -> None:
            self.told("network", before + done, count * epochs, {"loss": loss})

        return train_subject(self.options, self.dataset, self.networks, epoch_done, index)

    @property
    def _epochs(self) -> int:
        """Of each network."""
        return self.options.training.epochs or 1

    def _update(self, update: int, agent: Agent, learner: Learner) -> Row:
        """Episodes of one network and budget on one sample, and what is learnt from them."""
        generator = seeding.generator(self.options.seed, "pretraining episodes", update)
        network = update % len(self.subjects)
        environment = self._environment(self.subjects[network], generator)
        steps: list[Step] = []
        accuracies = []
        for noise in islice(mirrored(environment, generator), self.options.episodes):
            own, _ = episode(agent, environment, noise, self.options.sigma)
            accuracies.append(sum(step.reward for step in own))
            steps += own
        for group in learner.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * (1 - update / self.options.updates)
        learner.update(steps, environment.topology)
        _check_finite(agent, self.options)
        equal = environment.decide(lambda _: np.zeros(environment.layers))
        own_choice = environment.decide(
            lambda seen: act(agent, seen, environment.topology, None)[0]
        )
        return {
            "update": update,
            "network": network,
            "budget": environment.budget,
            "accuracy_mean": float(np.mean(accuracies)),
            "accuracy_best": max(accuracies),
            "accuracy_own": environment.score(own_choice),
            "accuracy_equal_ratios": environment.score(equal),
        }

    def _environment(self, subject: Subject, generator: np.random.Generator) -> PruningEnvironment:
        """One of a budget and a sample of the held-out data, both drawn."""
        options = self.options
        budget = generator.uniform(options.least_budget, options.most_budget)
        rows = generator.choice(len(subject.y), options.reward_samples, replace=False)
        sample = torch.from_numpy(np.sort(rows))
        return PruningEnvironment(
            pruner=subject.pruner,
            features=subject.features,
            scores=subject.scores,
            weights=subject.weights,
            accuracy=accuracy_of(subject, subject.x[sample], subject.y[sample]),
            budget=budget,
            steps=options.steps,
        )

    def _restore(self, agent: Agent, learner: Learner) -> None:
        saved = self.checkpoints.read("agent")
        if saved is not None:
            arrays, facts = saved
            agent.load_state_dict(tensors_of("agent", arrays))
            load_optimizer(learner.optimizer, tensors_of("optimizer", arrays))
            self.curve = facts["curve"]

    def _save(self, agent: Agent, learner: Learner) -> None:
        arrays = arrays_of("agent", agent.state_dict())
        arrays |= arrays_of("optimizer", optimizer_tensors(learner.optimizer))
        self.checkpoints.write("agent", arrays, curve=self.curve)


def _check_floor(options: Pretraining, model: Model, spec: SampleSpec) -> None:
    """Refuse budgets below what a network costs with every layer at its least keep ratio."""
    split, groups, _ = built(model, spec, options.seed)
    floor = Pruner(trace(split, spec, groups)).floor
    if options.least_budget < floor:
        raise ConfigError(
            f"least_budget must be at least {floor:.4f}, which every layer of {model.name} at its least "
            f"keep ratio costs, got {options.least_budget:g}"
        )


def _check_finite(agent: Agent, options: Pretraining) -> None:
    """Refuse to go on with an agent that no run could load."""
    if not all(bool(torch.isfinite(each).all()) for each in agent.parameters()):
        raise ConfigError(
            "learning_rate, prior and sigma must be so that the agent stays finite, got "
            f"{options.learning_rate:g}, {options.prior:g} and {options.sigma:g}: it diverged"
        )


def _dense_accuracy(subject: Subject) -> float:
    """Of a network with all channels."""
    everything = subject.pruner.kept(subject.scores, np.ones(len(subject.pruner.layers)))
    return accuracy_of(subject, subject.x, subject.y)(everything)
