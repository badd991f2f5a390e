"""Own partitions as a user writes them, and such that break a rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from spatl_ray.data.partition import Partition


def rows(labels: Any, features: Any, groups: Any, clients: int, generator: Any, skip: int = 0):
    """Every `clients`-th sample, from `skip` on; a list of arrays."""
    return [np.arange(skip + i, len(labels), clients) for i in range(clients)]


def as_lists(labels: Any, features: Any, groups: Any, clients: int, generator: Any):
    return tuple([i] for i in range(clients))


def drawn(labels: Any, features: Any, groups: Any, clients: int, generator: Any) -> Partition:
    """A Partition by the generator that is handed in, whose clients see doubled features."""
    offsets = np.linspace(0, len(labels), clients + 1).astype(np.int64)
    return Partition(generator.permutation(len(labels)), offsets, double)


def double(client: int, indices: np.ndarray, features: np.ndarray) -> np.ndarray:
    return 2 * features


def unlocks(labels: Any, features: Any, groups: Any, clients: int, generator: Any, what: str):
    """Tries to make something that it was handed writable."""
    handed = {"labels": labels, "features": features, "groups": groups}
    handed[what].flags.writeable = True
    handed[what][:] = 0
    return np.array_split(np.arange(len(labels)), clients)


def writes(labels: Any, features: Any, groups: Any, clients: int, generator: Any, into: str):
    """Writes into something that it was handed, or lets its transform do so."""
    parts = np.array_split(np.arange(len(labels)), clients)
    handed = {"labels": labels, "features": features, "groups": groups}
    if into in handed:
        handed[into][:] = 0
        return parts
    offsets = np.cumsum([0, *map(len, parts)])
    transform = shuffle_indices if into == "indices" else double_in_place
    return Partition(np.arange(len(labels)), offsets, transform)


def shuffle_indices(client: int, indices: np.ndarray, features: np.ndarray) -> np.ndarray:
    indices[:] = indices[::-1]
    return features


def double_in_place(client: int, indices: np.ndarray, features: np.ndarray) -> np.ndarray:
    features *= 2
    return features


def returns(labels: Any, features: Any, groups: Any, clients: int, generator: Any, what: str):
    """Something that is no good."""
    n = len(labels)
    whole, ends = np.arange(n), np.array([0, 5, n])
    wrong: dict[str, Any] = {
        "a dict": {},
        "a part too few": [whole],
        "floats": [whole[:5], whole[5:] / 2],
        "booleans": [np.ones(n, bool), whole[:1]],
        "a table": [whole[:4].reshape(2, 2), whole[5:]],
        "ragged": [[[1], [2, 3]], whole[5:]],
        "text": ["ab", whole],
        "a number": [3, whole],
        "too large": [whole[:5], whole[5:] + 1],
        "negative": [whole[:5] - 1, whole[5:]],
        "twice": [whole[:6], whole[5:]],
        "twice in one": [[0, 0], whole[5:]],
        "nobody": [whole, []],
        "short ends": Partition(whole, ends[:2]),
        "falling ends": Partition(whole, np.array([0, n + 1, n])),
        "open ends": Partition(whole, np.array([0, 5, n - 1])),
        "narrow": Partition(whole.astype(np.int32), ends),
        "a list": Partition(whole.tolist(), ends),  # type: ignore[arg-type]
        "no call": Partition(whole, ends, "noise"),  # type: ignore[arg-type]
        "other shape": Partition(whole, ends, lambda c, i, x: x[:, :0]),
        "other type": Partition(whole, ends, lambda c, i, x: x.astype(np.float64)),
        "no array": Partition(whole, ends, lambda c, i, x: x.tolist()),
    }
    return wrong[what]
