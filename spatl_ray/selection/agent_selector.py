"""The policy of the selection agent: it decides, and learns on the client at first."""

from __future__ import annotations

import numpy as np

from spatl_ray import config
from spatl_ray.errors import ConfigError
from spatl_ray.parameters import Arrays, Space
from spatl_ray.selection.agent import act, load_agent
from spatl_ray.selection.candidate import Candidate
from spatl_ray.selection.criteria import make_criterion
from spatl_ray.selection.environment import PruningEnvironment
from spatl_ray.selection.features import Features
from spatl_ray.selection.ppo import Found, Learner, search
from spatl_ray.selection.pruning import Pruned, Pruner
from spatl_ray.selection.selector import Selection, travelling

HEAD = "agent_head"
TUNED = "agent_tuned"
RATIOS = "agent_ratios"


class AgentSelector:
    """The agent gives each layer its keep ratio; the most salient channels travel and stay.

    In a client's first participations the actor's head is fine-tuned on the client's own
    validation sample, and the best ratios that were tried are taken, also afterwards: they were
    measured, the mean action was not. Without validation samples its mean action decides alone.

    Args:
        options: of the agent.
        space: the shared parameters.
        pruner: of the network.
        criterion: salience of what travels.
        inference_criterion: salience of what is kept for inference, and so is scored.

    Raises:
        ConfigError: weights that cannot be used, a criterion that cannot be loaded, or a budget below the
            floor of all layers.
    """

    def __init__(
        self,
        options: config.Agent,
        space: Space,
        pruner: Pruner,
        criterion: str,
        inference_criterion: str,
    ) -> None:
        self._options = options
        self._pruner = pruner
        self._features = Features(pruner, space)
        self._agent = load_agent(options.weights)
        self._head = self._agent.head()
        self._travel = make_criterion(criterion, "algorithm.criterion")
        self._inference = make_criterion(inference_criterion, "algorithm.inference.criterion")
        self.flops_floor = pruner.floor if options.measure == "flops" else 0.0
        if options.budget < pruner.floor:
            raise ConfigError(
                f"algorithm.agent.budget must be at least {pruner.floor:.4f}, which every layer at its least "
                f"keep ratio costs, got {options.budget:g}"
            )

    def start(self) -> Arrays:
        """The pre-trained head, not tuned yet, no ratios; nothing if heads are never tuned."""
        if not self._options.participations:
            return {}
        none = np.zeros(len(self._pruner.layers))
        return {HEAD: self._head, TUNED: np.zeros(1, np.int64), RATIOS: none}

    def select(self, candidate: Candidate) -> Selection:
        """The agent's decision.

        Raises:
            ConfigError: scores that cannot be ordered, too few bytes for one channel a layer, or a
                client's budget of FLOPs below the floor of all layers.
        """
        environment = self._environment(candidate)
        self._agent.set_head(candidate.state.get(HEAD, self._head))
        state, found = self._tuned(candidate, environment)
        pruned = found.pruned if found else self._decided(candidate, environment)
        ratios = dict(zip(self._pruner.layers, pruned.ratios.tolist(), strict=True))
        return Selection(
            travel=travelling(candidate, self._travel(candidate), ratios),
            inference=pruned.bits,
            state=state,
            inference_flops=self._pruner.flops_share(pruned.bits),
            reward=found.accuracy if found else None,
            evaluations=found.evaluations if found else 0,
        )

    def _environment(self, candidate: Candidate) -> PruningEnvironment:
        """The client's network, to be pruned to what it can afford."""
        options, budget = self._options, self._options.budget
        if candidate.budget_flops is not None:
            budget = min(budget, candidate.budget_flops)

        def accuracy(pruned: Pruned) -> float:
            score = candidate.validate(candidate.model, options.validation_samples, pruned.bits)
            return 0.0 if score is None else score.accuracy

        return PruningEnvironment(
            pruner=self._pruner,
            features=self._features,
            scores=self._inference(candidate),
            weights=candidate.weights,
            accuracy=accuracy,
            budget=budget,
            steps=options.steps,
        )

    def _tuned(
        self, candidate: Candidate, environment: PruningEnvironment
    ) -> tuple[Arrays, Found | None]:
        """The state after this participation, and what fine-tuning found, if there was one."""
        names = (HEAD, TUNED, RATIOS)
        own = {name: candidate.state[name] for name in names if name in candidate.state}
        episodes = self._planned(own) if candidate.episodes is None else candidate.episodes
        if not episodes or candidate.validate(candidate.model, 1) is None:
            return own, None
        known = own.get(RATIOS, np.zeros(1))
        found = search(
            self._agent,
            Learner(self._agent, only_head=True),
            environment,
            candidate.generator,
            episodes,
            [environment.at(known)] if known.any() else [],
        )
        if not own:
            return {}, found
        state = {HEAD: self._agent.head(), TUNED: own[TUNED] + 1, RATIOS: found.pruned.ratios}
        return state, found

    def _planned(self, own: Arrays) -> int:
        """Episodes of fine-tuning in this participation."""
        is_due = TUNED in own and own[TUNED][0] < self._options.participations
        return self._options.episodes if is_due else 0

    def _decided(self, candidate: Candidate, environment: PruningEnvironment) -> Pruned:
        """What the ratios that were found keep, else the agent's mean action."""
        ratios = candidate.state.get(RATIOS)
        if ratios is not None and ratios.any():
            return environment.at(ratios)
        topology = environment.topology
        return environment.decide(lambda seen: act(self._agent, seen, topology, None)[0])
