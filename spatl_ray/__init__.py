"""spatl_ray: federated learning on heterogeneous clients, simulated with Ray.

The public names are loaded on first use, so that `import spatl_ray` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spatl_ray.callbacks import Callback as Callback
    from spatl_ray.config import Experiment as Experiment
    from spatl_ray.data.datasets import Dataset as Dataset
    from spatl_ray.engine.resume import resume as resume
    from spatl_ray.engine.run import run as run
    from spatl_ray.engine.summary import RunSummary as RunSummary
    from spatl_ray.errors import SpatlError as SpatlError
    from spatl_ray.experiments import load_experiment as load_experiment

_HOMES = {
    "Callback": "spatl_ray.callbacks",
    "Experiment": "spatl_ray.config",
    "Dataset": "spatl_ray.data.datasets",
    "RunSummary": "spatl_ray.engine.summary",
    "resume": "spatl_ray.engine.resume",
    "run": "spatl_ray.engine.run",
    "SpatlError": "spatl_ray.errors",
    "load_experiment": "spatl_ray.experiments",
}
__all__ = [
    "Callback",
    "Dataset",
    "Experiment",
    "RunSummary",
    "SpatlError",
    "load_experiment",
    "resume",
    "run",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
