"""From an algorithm's config to the algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spatl_ray import config, plugins
from spatl_ray.algorithms.base import Algorithm
from spatl_ray.algorithms.fedavg import FedAvg
from spatl_ray.algorithms.fednova import FedNova
from spatl_ray.algorithms.fedper import FedPer
from spatl_ray.algorithms.fedprox import FedProx
from spatl_ray.algorithms.fedrep import FedRep
from spatl_ray.algorithms.local_only import LocalOnly
from spatl_ray.algorithms.scaffold import Scaffold
from spatl_ray.algorithms.spatl import Spatl
from spatl_ray.errors import ConfigError

ALGORITHMS: Mapping[str, type[Any]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fednova": FedNova,
    "scaffold": Scaffold,
    "spatl": Spatl,
    "fedper": FedPer,
    "fedrep": FedRep,
    "local_only": LocalOnly,
}


def make_algorithm(options: config.Algorithm) -> Algorithm:
    """The algorithm of an experiment; an own one is called with its `options` mapping.

    Raises:
        ConfigError: an own algorithm that cannot be imported, takes other options, or is none.
        PluginError: one that raises something else.
    """
    if not isinstance(options, config.OwnAlgorithm):
        algorithm: Algorithm = ALGORITHMS[options.name](options)
        return algorithm
    factory = plugins.load(options.name, "algorithm.name")
    try:
        with plugins.blamed("algorithm.name", options.name, passed=plugins.MISFITS):
            found = factory(options.options)
    except plugins.MISFITS as error:
        raise ConfigError(f"algorithm.options do not fit {options.name}: {error!r}") from error
    if not isinstance(found, Algorithm):
        raise ConfigError(
            f"algorithm.name must name a subclass of spatl_ray.algorithms.base.Algorithm, "
            f"got {options.name!r}: a {type(found).__name__}"
        )
    return found
