"""Own partitions by dotted name, and the check that they keep the rules."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from spatl_ray import config, plugins
from spatl_ray.arrays import Integers, readonly
from spatl_ray.data.dealing import Partition, Samples, offsets_of, transformed
from spatl_ray.errors import ConfigError, DataError


def own_partition(
    samples: Samples, spec: config.OwnPartition, clients: int, generator: np.random.Generator
) -> Partition:
    """What function(labels, features, groups, clients, generator, **options) returns.

    The arrays are read-only. It may return a Partition, or a list or tuple of one array of sample
    indices a client.

    Raises:
        ConfigError: it cannot be imported, takes other arguments, or returns something else.
        DataError: what it returns breaks a rule of partitions.
        PluginError: it, or its transform, raises, such as when it writes into what it is given.
    """
    function = plugins.load(spec.name, "partition.name")
    groups = None if samples.groups is None else readonly(samples.groups)
    arrays = (readonly(samples.labels), readonly(samples.features), groups)
    arguments = (*arrays, clients, generator)
    try:
        inspect.signature(function).bind(*arguments, **spec.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"partition.options must fit the arguments of {spec.name}, which is called as "
            f"function(labels, features, groups, clients, generator, **options), "
            f"got {spec.options} ({error})"
        ) from error
    with plugins.blamed("partition.name", spec.name):
        returned = function(*arguments, **spec.options)
    partition = _as_partition(spec.name, returned)
    _check_deal(spec.name, partition, len(samples), clients)
    _check_transform(spec.name, partition, samples)
    return partition


def _broken(name: str, what: str, rule: str, got: object) -> DataError:
    return DataError(f"partition {name}: {what} must {rule}, got {got}")


def _as_partition(name: str, returned: Any) -> Partition:
    if isinstance(returned, Partition):
        return returned
    if not isinstance(returned, list | tuple):
        raise ConfigError(
            "partition.name must name a function that returns a Partition or a list of one array "
            f"of sample indices a client, got {name!r}, which returns a {type(returned).__name__}"
        )
    parts = [_indices(name, f"client {i}'s indices", part) for i, part in enumerate(returned)]
    sizes = np.array([len(part) for part in parts], np.int64)
    return Partition(np.concatenate([np.zeros(0, np.int64), *parts]), offsets_of(sizes))


def _indices(name: str, what: str, array: Any) -> Integers:
    """A flat array of integers as int64; an empty one may be of any type, as a list's is."""
    if not isinstance(array, np.ndarray | Sequence) or isinstance(array, str | bytes):
        raise _broken(name, what, "be an array of integers", f"a {type(array).__name__}")
    try:
        found = np.asarray(array)
    except ValueError as error:  # Rows of several lengths.
        raise _broken(name, what, "be an array of integers", str(error)) from error
    if found.ndim != 1 or (found.size and not np.issubdtype(found.dtype, np.integer)):
        got = f"one of {found.dtype} and shape {found.shape}"
        raise _broken(name, what, "be a flat array of integers", got)
    return found.astype(np.int64)


def _check_deal(name: str, partition: Partition, total: int, clients: int) -> None:
    """Sets of samples that exist, one a client, disjoint; in time linear in the samples."""
    offsets, indices = partition.offsets, partition.indices
    for what, array in (("offsets", offsets), ("indices", indices)):
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != np.int64:
            got = getattr(array, "dtype", type(array).__name__)
            raise _broken(name, what, "be a flat NumPy array of int64", got)
    if len(offsets) != clients + 1:
        raise _broken(name, "the deal", f"have clients={clients} parts", len(offsets) - 1)
    if offsets[0] != 0 or offsets[-1] != len(indices) or (np.diff(offsets) < 0).any():
        got = f"from {offsets[0]} to {offsets[-1]}"
        raise _broken(name, "offsets", f"rise from 0 to {len(indices)}", got)
    if indices.size and not 0 <= indices.min() <= indices.max() < total:
        got = f"{indices.min()} to {indices.max()}"
        raise _broken(name, "sample indices", f"be in [0, {total})", got)
    twice = np.flatnonzero(np.bincount(indices, minlength=total) > 1)
    if twice.size:
        got = f"sample {twice[0]} several times"
        raise _broken(name, "clients' samples", "be disjoint", got)


def _check_transform(name: str, partition: Partition, samples: Samples) -> None:
    """Whether a transform keeps shape and type, tried on the first client's samples."""
    transform = partition.transform
    if transform is None:
        return
    if not callable(transform):
        raise _broken(name, "transform", "be callable", f"a {type(transform).__name__}")
    indices = partition.client(0)
    before = samples.features[indices]
    after: Any = transformed(transform, 0, indices, before)
    if not isinstance(after, np.ndarray):
        raise _broken(name, "transform", "return an array", f"a {type(after).__name__}")
    if (after.dtype, after.shape) != (before.dtype, before.shape):
        rule = f"keep {before.dtype} and shape {before.shape}"
        raise _broken(name, "transform", rule, f"{after.dtype} and shape {after.shape}")
