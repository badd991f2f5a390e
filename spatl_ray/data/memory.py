"""Data in memory, as an experiment records them."""

from __future__ import annotations

from spatl_ray.config import Experiment
from spatl_ray.data.dataset import Dataset
from spatl_ray.errors import ConfigError

MEMORY = "memory"
"""The name of data that no config can load."""


def with_memory(experiment: Experiment, dataset: Dataset) -> Experiment:
    """The experiment with `dataset` for its data: what a run of both records, and its run id.

    `data.options` are the data set's name and fingerprint, so that other data give another run id.
    `data.root` and `data.samples` mean nothing.

    Raises:
        ConfigError: `dataset` is something else, such as an array.
    """
    if not isinstance(dataset, Dataset):
        raise ConfigError(
            "dataset must be a spatl_ray.Dataset, such as Dataset.from_arrays makes, "
            f"got a value of type {type(dataset).__name__}"
        )
    known = {"name": dataset.name, "fingerprint": dataset.fingerprint}
    changes = {"name": MEMORY, "root": None, "samples": None, "options": known}
    return experiment.model_copy(update={"data": experiment.data.model_copy(update=changes)})
