"""Who is asked in each round, with which weights, and on what devices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spatl_ray import seeding
from spatl_ray.arrays import Doubles, Integers
from spatl_ray.config import Experiment
from spatl_ray.engine.backend import Backend, EvaluationPlan, RoundPlan
from spatl_ray.engine.clock import probe_seconds
from spatl_ray.engine.messages import NEVER, ClientReport, Losses, Member, PanelMember
from spatl_ray.engine.schedule import CostModel, cohort_weights, objective_weights
from spatl_ray.errors import ConfigError, StateError
from spatl_ray.federation.availability import make_availability
from spatl_ray.federation.devices import Fleet
from spatl_ray.federation.sampler import Draw
from spatl_ray.federation.samplers import make_sampler
from spatl_ray.parameters import Arrays


@dataclass(frozen=True)
class Asked:
    """A drawn cohort.

    Attributes:
        plan: the round.
        probed: losses that clients were asked for before, with what that cost; None if none were.
    """

    plan: RoundPlan
    probed: Losses | None

    @property
    def unused_bytes(self) -> dict[int, int]:
        """Bytes that candidates received who were not drawn."""
        drawn = {member.client for member in self.plan.members}
        asked = self.probed.bytes_down.items() if self.probed else ()
        return {client: size for client, size in asked if client not in drawn}


class Cohorts:
    """Draws each round's cohort, and remembers of each client what that needs.

    Args:
        experiment: the config.
        samples: training samples of each client.
        fleet: their devices, or None if no time is simulated.
        flops: of training on one sample.
        backend: asks clients for losses, where the sampler wants them.
    """

    def __init__(
        self,
        experiment: Experiment,
        samples: Integers,
        fleet: Fleet | None,
        flops: float,
        backend: Backend,
    ) -> None:
        self._experiment = experiment
        self._fleet = fleet
        self._flops = flops
        self._backend = backend
        self._costs = CostModel(samples)
        self._objective = objective_weights(experiment, samples)
        self._samples = samples
        self._sampler = make_sampler(
            experiment.sampler, samples, experiment.seed, experiment.asked_size
        )
        self._available = make_availability(
            experiment.availability, experiment.clients, experiment.seed
        )
        self._last = np.full(experiment.clients, NEVER, dtype=np.int32)
        self._losses = np.full(experiment.clients, np.inf)
        self._turns = np.zeros(experiment.clients, dtype=np.int64)

    def draw(
        self, round_: int, lr: float, measured: Collection[int], kept: tuple[int, ...] = ()
    ) -> Asked:
        """The round's cohort, in ascending order; empty if nobody is available.

        Args:
            round_: the round.
            lr: its learning rate.
            measured: clients whose model is evaluated right after local training.
            kept: rounds of the checkpoints that can be restored.
        """
        probes: list[Losses] = []

        def current(clients: Integers) -> Doubles:
            clients = self._known(clients)
            if not len(clients):
                return np.zeros(0)
            probes.append(self._backend.losses(self.evaluation(round_, lr, clients)))
            return np.array([probes[-1].values[c] for c in clients.tolist()], dtype=np.float64)

        cohort = self._sampler.cohort(
            Draw(
                round=round_,
                size=self._experiment.asked_size,
                generator=seeding.generator(self._experiment.seed, "cohort", round_),
                available=lambda clients: self._available(round_, self._known(clients)),
                turns=lambda clients: self._turns[self._known(clients)],
                last_losses=lambda clients: self._losses[self._known(clients)],
                current_losses=current,
            )
        )
        self._turns[cohort] += 1
        probed = _together(probes)
        plan = self._plan(round_, lr, np.sort(cohort), measured, probed)
        return Asked(replace(plan, kept=kept), probed)

    def memory(self) -> Arrays:
        """Copies of what is remembered of the clients, by name."""
        return {name: array.copy() for name, array in self._remembered().items()}

    def remember(self, memory: Arrays) -> None:
        """Go on from an earlier `memory`.

        Raises:
            StateError: it is of another federation.
        """
        for name, array in self._remembered().items():
            found = memory.get(name)
            if found is None or (found.dtype, found.shape) != (array.dtype, array.shape):
                raise StateError(
                    f"a checkpoint must hold {name!r} of {array.dtype} and shape {array.shape}: it is of "
                    "another run"
                )
            array[...] = found

    @property
    def last(self) -> Integers:
        """The round of each client's state, -1 for the initial one, shape (clients,)."""
        return self._last.astype(np.int64)

    def _remembered(self) -> Arrays:
        """The arrays themselves."""
        clients = {"last": self._last, "losses": self._losses, "turns": self._turns}
        return {**clients, **self._costs.memory()}

    def _known(self, clients: Integers) -> Integers:
        """The clients that a sampler asks about.

        Raises:
            ConfigError: something else than clients of this federation.
        """
        asked, name, most = np.asarray(clients), self._experiment.sampler.name, len(self._last)
        if asked.size and not np.issubdtype(asked.dtype, np.integer):
            raise ConfigError(f"sampler.name {name!r} must ask about integers, got {asked.dtype}")
        wrong = asked[(asked < 0) | (asked >= most)]
        if wrong.size:
            raise ConfigError(
                f"sampler.name {name!r} must ask about clients in [0, {most}), got {wrong[0]}"
            )
        return asked.astype(np.int64)

    def _plan(
        self,
        round_: int,
        lr: float,
        cohort: Integers,
        measured: Collection[int],
        probed: Losses | None,
    ) -> RoundPlan:
        """The round of a cohort."""
        weights = cohort_weights(cohort, self._objective, self._sampler.chance(cohort))
        informed = probed.bytes_down.keys() if probed else ()
        members = tuple(
            Member(
                client=client,
                weights=weight,
                last=int(self._last[client]),
                measure=client in measured,
                device=self._fleet.device(client) if self._fleet else None,
                informed=client in informed,
            )
            for client, weight in zip(cohort.tolist(), weights, strict=True)
        )
        return RoundPlan(
            round=round_,
            lr=lr,
            members=members,
            costs=tuple(self._costs.of(cohort).tolist()),
            flops=self._flops,
            elapsed=self._probing(probed),
            together=self._experiment.training.together,
        )

    def _probing(self, probed: Losses | None) -> float:
        """Simulated seconds that the question for losses took."""
        if probed is None or self._fleet is None:
            return 0.0
        return probe_seconds(self._fleet, self._flops, self._samples, probed.bytes_down)

    def evaluation(self, round_: int, lr: float, clients: Integers) -> EvaluationPlan:
        """The evaluation of what some clients would receive in a round."""
        members = tuple(PanelMember(c, int(self._last[c])) for c in clients.tolist())
        return EvaluationPlan(round_, lr, members, tuple(self._costs.of(clients).tolist()))

    def ended(self, round_: int, reports: Sequence[ClientReport]) -> None:
        """Remember whose state was committed, and the losses of those who trained.

        A client without a loss ranks last from then on: it would be drawn for ever otherwise. What each
        took tells where to place clients from now on.
        """
        timed = [report for report in reports if report.seconds]
        if timed:
            self._costs.learn(
                np.array([report.client for report in timed]),
                np.array([report.seconds for report in timed]),
            )
        for report in reports:
            if report.counts:
                self._last[report.client] = round_
            loss = report.train_loss
            known = loss is not None and np.isfinite(loss)
            self._losses[report.client] = loss if known else -np.inf


def _together(probes: Sequence[Losses]) -> Losses | None:
    """All probes of a round as one; a client that was asked twice received the broadcast once."""
    if not probes:
        return None
    values = {c: loss for probe in probes for c, loss in probe.values.items()}
    return Losses(values, {c: n for probe in probes for c, n in probe.bytes_down.items()})
