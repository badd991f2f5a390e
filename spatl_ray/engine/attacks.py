"""Hostile clients: who they are, and what they send instead of their update.

They keep to the protocol otherwise: they train, select and keep their state as honest clients do, say
true counts, and send a valid message. The vectors of parameters are attacked, at the positions that
the client sends (with "sent" control variates those too); buffers travel as they are, because one
negative variance would end any run in NaN.

References:
    Li, Xu, Chen, Giannakis, Ling, "RSA: Byzantine-robust stochastic aggregation methods for distributed
    learning from heterogeneous datasets", AAAI 2019 (sign flipping).
    Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How to backdoor federated learning", AISTATS 2020 (scaled
    updates).
    Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine learning with adversaries: Byzantine tolerant gradient
    descent", NeurIPS 2017 (Gaussian noise).
    Tolpekin, Truex, Gursoy, Liu, "Data poisoning attacks against federated learning systems", ESORICS
    2020; Fang, Cao, Jia, Gong, "Local model poisoning attacks to Byzantine-robust federated learning", USENIX
    Security 2020 (flipped labels).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from spatl_ray import seeding
from spatl_ray.algorithms.base import BUFFERS, ClientView
from spatl_ray.arrays import Bits, Doubles
from spatl_ray.config import Experiment, LabelFlip
from spatl_ray.update import Part, Parts, cast

Lie = Callable[[Doubles, float, np.random.Generator], Doubles]


def hostile_clients(experiment: Experiment) -> Bits:
    """Which clients are hostile, shape (clients,): a share of all, drawn once by the seed."""
    hostile = np.zeros(experiment.clients, dtype=np.bool_)
    generator = seeding.generator(experiment.seed, "hostile")
    hostile[generator.choice(experiment.clients, experiment.hostile_count, replace=False)] = True
    return hostile


def flips_labels(experiment: Experiment) -> Bits | None:
    """Which clients train on flipped labels, shape (clients,); None if nobody does."""
    return hostile_clients(experiment) if isinstance(experiment.attack, LabelFlip) else None


def sign_flip(values: Doubles, scale: float, generator: np.random.Generator) -> Doubles:
    """-scale u."""
    return -scale * values


def scaled(values: Doubles, scale: float, generator: np.random.Generator) -> Doubles:
    """scale u."""
    return scale * values


def gaussian(values: Doubles, scale: float, generator: np.random.Generator) -> Doubles:
    """N(0, (scale rms(u))^2) in each of the n values, rms(u)^2 = sum u_j^2 / n."""
    rms = math.sqrt(np.square(values).sum() / max(1, len(values)))
    return scale * rms * generator.standard_normal(len(values))


LIES: Mapping[str, Lie] = {"sign_flip": sign_flip, "scaled": scaled, "gaussian": gaussian}


class Attack:
    """What hostile clients do to their updates.

    Args:
        experiment: says which attack and how many.
    """

    def __init__(self, experiment: Experiment) -> None:
        options = experiment.attack
        self._lie = None if options is None else LIES.get(options.name)
        self._scale = getattr(options, "scale", 1.0)
        self._hostile = hostile_clients(experiment)

    def lies(self, client: int) -> bool:
        """Whether a client sends another update than that of its training."""
        return self._lie is not None and bool(self._hostile[client])

    def sent(self, view: ClientView, parts: Parts) -> Parts:
        """What a client sends instead of its update's parts: same positions, same value types.

        Values beyond a value type become infinite, and the server rejects them.
        """
        if not self.lies(view.client):
            return parts
        return {
            name: part if name == BUFFERS else self._instead(part, view.generator(f"lie, {name}"))
            for name, part in parts.items()
        }

    def _instead(self, part: Part, generator: np.random.Generator) -> Part:
        assert self._lie is not None
        values = self._lie(part.values.astype(np.float64), self._scale, generator)
        return cast(part.mask, values, part.value_type, generator)
