"""LEAF's JSON files: samples by user (Caldas et al., "LEAF", arXiv 1812.01097, 2018)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from spatl_ray.arrays import Floats, Integers
from spatl_ray.data.files import Files
from spatl_ray.errors import DataError

KEYS = ("users", "num_samples", "user_data")

X = TypeVar("X", Floats, Integers)

Parse = Callable[[list[Any], list[Any]], tuple[X, Integers]]
"""(a user's x, its y) to features, shape (n, *shape), and labels, shape (n,), n at least 1.

Raises:
    ValueError: a rule that the samples break; the reader adds file and user.
"""


@dataclass(frozen=True)
class Part(Generic[X]):
    """The samples of one folder, its users in the order of their names.

    Attributes:
        x: features, shape (n, *shape).
        y: labels, int64, shape (n,).
        owners: index of each sample's user, int64, shape (n,).
    """

    x: X
    y: Integers
    owners: Integers


def leaf_files(name: str) -> Files:
    """The files of a LEAF data set: any number in a folder train and in a folder test."""
    return Files(
        name, (("train/*.json",), ("test/*.json",)),
        ("", name, "data", f"{name}/data"), "JSON files as LEAF makes them",
        cure=f"LEAF's data/{name}/preprocess.sh, which makes the folders train and test of FOLDER",
    )  # fmt: skip


def read_part(folder: Path, parse: Parse[X]) -> Part[X]:
    """All samples of a folder's JSON files, one file in memory at a time.

    Args:
        folder: holds at least one file whose name ends in .json.
        parse: turns a user's samples into arrays.

    Raises:
        DataError: a file is damaged or breaks a rule; it names the file, the user and the rule.
    """
    found: dict[str, tuple[X, Integers]] = {}
    for path in sorted(folder.glob("*.json")):
        for user, x, y in _users(path):
            if user in found:
                raise _broken(path, user, "be in one file only", "the user a second time")
            if y:
                try:
                    found[user] = parse(x, y)
                except ValueError as error:
                    raise DataError(f"{path}: user {user!r}: {error}") from error
    if not found:
        raise DataError(f"{folder}: must hold at least one sample, got none")
    return _joined([found.pop(user) for user in sorted(found)])


def _joined(parts: list[tuple[X, Integers]]) -> Part[X]:
    """All users' samples in one array; each user's own array is freed when it has been copied."""
    sizes = [len(y) for _, y in parts]
    y = np.concatenate([y for _, y in parts])
    end = sum(sizes)
    x = np.empty_like(parts[0][0], shape=(end, *parts[0][0].shape[1:]))
    for size in reversed(sizes):
        x[end - size : end] = parts.pop()[0]
        end -= size
    return Part(x, y, np.repeat(np.arange(len(sizes)), sizes))


def _users(path: Path) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """(user, x, y) of a file."""
    content = _content(path)
    users, counts, data = (content[key] for key in KEYS)
    for user, count in zip(users, counts, strict=True):
        samples = data.get(user) if isinstance(user, str) else None
        if not isinstance(samples, dict) or not {"x", "y"} <= samples.keys():
            raise _broken(path, user, "have x and y in user_data", "no such")
        x, y = samples["x"], samples["y"]
        for values in (x, y):
            if not isinstance(values, list):
                raise _broken(path, user, "have lists as x and y", f"a {type(values).__name__}")
        if not len(x) == len(y) == count:
            rule = f"have as many x and y as num_samples says, {count}"
            raise _broken(path, user, rule, f"{len(x)} and {len(y)}")
        yield user, x, y


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: must be readable as JSON, got {type(error).__name__}: {error}"
        ) from error
    kinds = (list, list, dict)
    for key, kind in zip(KEYS, kinds, strict=True):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, kind):
            got = "none" if value is None else f"a {type(value).__name__}"
            raise DataError(f"{path}: must hold a {kind.__name__} {key}, got {got}")
    if len(content["users"]) != len(content["num_samples"]):
        raise DataError(
            f"{path}: num_samples must be as long as users, {len(content['users'])}, "
            f"got {len(content['num_samples'])}"
        )
    return content  # type: ignore[no-any-return]


def _broken(path: Path, user: object, rule: str, got: str) -> DataError:
    return DataError(f"{path}: user {user!r} must {rule}, got {got}")
