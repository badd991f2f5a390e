"""From an experiment to its model, layout and algorithm: the same in every process."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from spatl_ray.algorithms.base import Algorithm, Setting
from spatl_ray.algorithms.registry import make_algorithm
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.models.coupling import channel_groups
from spatl_ray.models.flat import FlatModel, make_layout
from spatl_ray.models.split import build_model
from spatl_ray.parameters import ModelVector

TORCH_TYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, eq=False)
class Blueprint:
    """Everything of a run that is not data.

    Attributes:
        experiment: the config.
        algorithm: bound to its setting.
        model: the flat model that clients train in.
        initial: the model before round 0.
    """

    experiment: Experiment
    algorithm: Algorithm
    model: FlatModel
    initial: ModelVector

    @property
    def levels(self) -> int:
        """Precision of exact sums: two grids for float64, one for float32."""
        return 2 if self.experiment.training.dtype == "float64" else 1


def make_blueprint(experiment: Experiment, spec: SampleSpec, device: torch.device) -> Blueprint:
    """Build model and algorithm.

    Args:
        experiment: the config.
        spec: of the data.
        device: that clients train on.

    Raises:
        ConfigError, ModelError: a model or an algorithm that cannot be built.
    """
    training = experiment.training
    dtype = TORCH_TYPES[training.dtype]
    algorithm = make_algorithm(experiment.algorithm)
    split = algorithm.extend(build_model(experiment.model, spec, experiment.seed, dtype))
    groups, member = channel_groups(split, spec, dtype)
    layout = make_layout(split, groups, member, algorithm.is_shared, training.buffers)
    model = FlatModel(split, layout, device)
    algorithm.bind(
        Setting(
            model=split,
            spec=spec,
            layout=layout,
            training=training,
            clients=experiment.clients,
            uplink=experiment.wire.uplink or training.dtype,
            downlink=experiment.wire.downlink or training.dtype,
            seed=experiment.seed,
            control=None if experiment.wire.is_held else experiment.wire.control,
        )
    )
    return Blueprint(experiment, algorithm, model, model.read())
