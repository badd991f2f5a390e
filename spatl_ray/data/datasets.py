"""Data sets by name: the built-in ones, and own ones by dotted name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from spatl_ray import faults, plugins, seeding
from spatl_ray.arrays import Features, Integers
from spatl_ray.config import Data
from spatl_ray.data.dataset import Dataset, SampleSpec, digest
from spatl_ray.data.memory import MEMORY
from spatl_ray.data.sources.cifar import cifar10, cifar100
from spatl_ray.data.sources.digits import digits
from spatl_ray.data.sources.images import images
from spatl_ray.data.sources.leaf import femnist, shakespeare
from spatl_ray.data.sources.mnist import emnist, fashion_mnist, mnist
from spatl_ray.data.sources.parquet import parquet
from spatl_ray.data.sources.svhn import svhn
from spatl_ray.data.sources.synthetic import fcube, synthetic_images
from spatl_ray.errors import ConfigError

__all__ = [
    "BUILT_IN",
    "Dataset",
    "Features",
    "Integers",
    "SampleSpec",
    "digest",
    "load_dataset",
]

BUILT_IN: Mapping[str, Callable[..., Dataset]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "mnist": mnist,
    "emnist": emnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "femnist": femnist,
    "shakespeare": shakespeare,
    "fcube": fcube,
    "synthetic_images": synthetic_images,
    "images": images,
    "parquet": parquet,
}
"""Functions of `data.root`, and of `data.options` as keyword arguments."""


def load_dataset(config: Data, seed: int) -> Dataset:
    """The data set that an experiment asks for.

    Args:
        config: name, place, size and options of the data set.
        seed: the experiment's seed; it draws the subset of `config.samples` training samples.

    Raises:
        ConfigError: an unknown name, options that do not fit, or more samples than there are.
        DataError: files that are missing or damaged, or arrays that break a rule of `Dataset`.
        PluginError: an own loader raises.
    """
    if plugins.is_dotted(config.name):
        dataset = _own(config)
    elif config.name in BUILT_IN:
        dataset = _call(BUILT_IN[config.name], config, config.root)
    else:
        raise _unknown(config.name)
    return dataset if config.samples is None else _subset(dataset, config.samples, seed)


def _unknown(name: str) -> ConfigError:
    if name == MEMORY:
        return ConfigError(
            "data.name must name data that can be loaded, got 'memory', which stands for arrays in "
            "memory: give them again, as spatl_ray.run(experiment, dataset=...)"
        )
    near = faults.nearest(name, BUILT_IN)
    hint = f"; did you mean {near!r}?" if near else ""
    return ConfigError(
        f"data.name must be one of {', '.join(BUILT_IN)} or package.module:loader, got {name!r}{hint}"
    )


def _call(loader: Callable[..., Any], config: Data, *roots: str | None) -> Any:
    """What the loader returns for `data.options`, if they fit its arguments."""
    try:
        inspect.signature(loader).bind(*roots, **config.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"data.options must fit the arguments of {config.name}, got {config.options} ({error})"
        ) from error
    return loader(*roots, **config.options)


def _own(config: Data) -> Dataset:
    loader = plugins.load(config.name, "data.name")
    with plugins.blamed("data.name", config.name):
        dataset = _call(loader, config)
    if not isinstance(dataset, Dataset):
        raise ConfigError(
            f"data.name must name a loader that returns a Dataset, got {config.name!r}, "
            f"which returns a {type(dataset).__name__}"
        )
    return dataset


def _subset(dataset: Dataset, samples: int, seed: int) -> Dataset:
    total = len(dataset.train_y)
    if samples > total:
        raise ConfigError(
            f"data.samples must be at most {total}, the training samples of {dataset.name}, "
            f"got {samples}"
        )
    drawn = seeding.generator(seed, "subset").choice(total, samples, replace=False)
    chosen = np.sort(drawn)
    groups = None if dataset.groups is None else dataset.groups[chosen]
    return replace(
        dataset, train_x=dataset.train_x[chosen], train_y=dataset.train_y[chosen], groups=groups
    )
