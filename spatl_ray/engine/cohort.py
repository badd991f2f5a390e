"""Who is asked in each round, with which weights, and on what devices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from spatl_ray import seeding
from spatl_ray.config import Experiment
from spatl_ray.engine.backend import Backend, EvaluationPlan, RoundPlan
from spatl_ray.engine.messages import NEVER, ClientReport, Losses, Member, PanelMember
from spatl_ray.engine.schedule import Integers, cohort_weights, objective_weights
from spatl_ray.federation.availability import make_availability
from spatl_ray.federation.devices import Fleet
from spatl_ray.federation.sampler import Doubles, Draw
from spatl_ray.federation.samplers import make_sampler


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
        self._costs = samples.astype(np.float64)
        self._objective = objective_weights(experiment, samples)
        self._sampler = make_sampler(experiment.sampler, samples, experiment.seed)
        self._available = make_availability(
            experiment.availability, experiment.clients, experiment.seed
        )
        self._last = np.full(experiment.clients, NEVER, dtype=np.int32)
        self._losses = np.full(experiment.clients, np.inf)

    def draw(self, round_: int, lr: float, measured: Collection[int]) -> Asked:
        """The round's cohort, in ascending order; empty if nobody is available.

        Args:
            round_: the round.
            lr: its learning rate.
            measured: clients whose model is evaluated right after local training.
        """
        probes: list[Losses] = []

        def current(clients: Integers) -> Doubles:
            probes.append(self._backend.losses(self.evaluation(round_, lr, clients)))
            return np.array([probes[-1].values[c] for c in clients.tolist()], dtype=np.float64)

        cohort = self._sampler.cohort(
            Draw(
                round=round_,
                size=self._experiment.asked_size,
                generator=seeding.generator(self._experiment.seed, "cohort", round_),
                available=lambda clients: self._available(round_, clients),
                last_losses=lambda clients: self._losses[clients],
                current_losses=current,
            )
        )
        probed = _together(probes)
        return Asked(self._plan(round_, lr, np.sort(cohort), measured, probed), probed)

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
        return RoundPlan(round_, lr, members, tuple(self._costs[cohort].tolist()), self._flops)

    def evaluation(self, round_: int, lr: float, clients: Integers) -> EvaluationPlan:
        """The evaluation of what some clients would receive in a round."""
        members = tuple(PanelMember(c, int(self._last[c])) for c in clients.tolist())
        return EvaluationPlan(round_, lr, members, tuple(self._costs[clients].tolist()))

    def ended(self, round_: int, reports: Sequence[ClientReport]) -> None:
        """Remember whose state was committed, and the losses of those who trained."""
        for report in reports:
            if report.status in ("accepted", "clipped"):
                self._last[report.client] = round_
            if report.train_loss is not None and np.isfinite(report.train_loss):
                self._losses[report.client] = report.train_loss


def _together(probes: Sequence[Losses]) -> Losses | None:
    """All probes of a round as one; a client that was asked twice received the broadcast once."""
    if not probes:
        return None
    values = {c: loss for probe in probes for c, loss in probe.values.items()}
    return Losses(values, {c: n for probe in probes for c, n in probe.bytes_down.items()})
