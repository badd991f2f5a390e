"""From the names in results.loggers to callbacks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from spatl_ray import plugins
from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.loggers.named import Named
from spatl_ray.loggers.ray_metrics import RayMetrics
from spatl_ray.loggers.tensorboard import TensorBoard

LOGGERS: Mapping[str, Callable[[Experiment], Callback]] = {
    "tensorboard": TensorBoard,
    "ray_metrics": RayMetrics,
}


def make_loggers(experiment: Experiment) -> list[Callback]:
    """The experiment's loggers, in its order; an own class or function is called with the experiment.

    What one raises later, at any moment, is a PluginError that names it.

    Raises:
        ConfigError: what is not installed, cannot be imported, takes other arguments, or gives no
            Callback; all of it.
        PluginError: one raises when it is made.
    """
    loggers: list[Callback] = []
    faults: list[str] = []
    for name in experiment.results.loggers:
        try:
            loggers.append(Named(_made(name, experiment), name))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(faults)
    return loggers


def check_loggers(experiment: Experiment) -> None:
    """Try to find the experiment's loggers, without making any.

    Raises:
        ConfigError: one that cannot be imported.
    """
    for name in experiment.results.loggers:
        _factory(name)


def _factory(name: str) -> Callable[..., object]:
    return LOGGERS[name] if name in LOGGERS else plugins.load(name, "results.loggers")


def _made(name: str, experiment: Experiment) -> Callback:
    """One logger."""
    factory = _factory(name)
    try:
        inspect.signature(factory).bind(experiment)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "results.loggers must name what can be called with the experiment alone, "
            f"got {name!r} ({error})"
        ) from error
    with plugins.blamed("results.loggers", name, "when it was made"):
        logger = factory(experiment)
    if not isinstance(logger, Callback):
        raise ConfigError(
            f"results.loggers must name what gives a spatl_ray.Callback, got {name!r}: "
            f"a {type(logger).__name__}"
        )
    return logger
