"""Figures of devices, one a client, drawn as the config says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from spatl_ray import config, seeding
from spatl_ray.arrays import Doubles
from spatl_ray.errors import ConfigError

LOWEST, HIGHEST = 1e-100, 1e100
"""Of what is drawn: a long tail may leave what a config may say, but no time may be infinite."""


def figure(field: str, draw: config.Draw, clients: int, seed: int) -> Doubles:
    """One figure of all clients, from a random stream of its own.

    Args:
        field: its name in the section `devices`.
        draw: what it is drawn from.
        clients: number N of clients.
        seed: the experiment's.

    Raises:
        ConfigError: a figure that is drawn outside of [LOWEST, HIGHEST].
    """
    values = DRAWS[draw.name](draw, clients, seeding.generator(seed, f"devices {field}"))
    bad = np.flatnonzero(~((values >= LOWEST) & (values <= HIGHEST)))
    if bad.size:
        raise ConfigError(
            f"devices.{field} must be in [{LOWEST:g}, {HIGHEST:g}] for every client, drew "
            f"{values[bad[0]]:g} for client {bad[0]}"
        )
    return values


def _constant(draw: config.Constant, clients: int, generator: np.random.Generator) -> Doubles:
    return np.full(clients, draw.value)


def _between(draw: config.Between, clients: int, generator: np.random.Generator) -> Doubles:
    return generator.uniform(draw.low, draw.high, clients)


def _lognormal(draw: config.Lognormal, clients: int, generator: np.random.Generator) -> Doubles:
    # Of a huge sigma some draws are 0 or infinite; the caller refuses those.
    with np.errstate(over="ignore", under="ignore"):
        values: Doubles = draw.median * np.exp(draw.sigma * generator.standard_normal(clients))
    return values


def _choice(draw: config.Choice, clients: int, generator: np.random.Generator) -> Doubles:
    shares = np.array(draw.shares or np.ones(len(draw.values)))
    shares = shares / shares.max()  # First: the sum of huge ones would be infinite.
    return generator.choice(np.array(draw.values), clients, p=shares / shares.sum())


DRAWS: Mapping[str, Callable[..., Doubles]] = {
    "constant": _constant,
    "between": _between,
    "lognormal": _lognormal,
    "choice": _choice,
}


def lowest(draw: config.Draw) -> float:
    """The lowest value that can be drawn."""
    if isinstance(draw, config.Constant):
        return draw.value
    if isinstance(draw, config.Between):
        return draw.low
    if isinstance(draw, config.Choice):
        return min(draw.values)
    return 0.0 if draw.sigma else draw.median
