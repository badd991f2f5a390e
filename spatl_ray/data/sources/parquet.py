"""Tables of features in Parquet files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spatl_ray.arrays import Integers
from spatl_ray.data.dataset import MOST_CLASSES, Dataset
from spatl_ray.data.holdout import stratified
from spatl_ray.data.options import check_bools, check_fraction, check_root, check_sizes, refuse
from spatl_ray.data.table import Table
from spatl_ray.errors import DataError


def parquet(
    root: str | None = None,
    label: str = "label",
    group: str | None = None,
    features: Sequence[str] | None = None,
    test: str | None = None,
    test_fraction: float = 0.2,
    normalise: bool = True,
    shape: Sequence[int] | None = None,
) -> Dataset:
    """A Parquet file with a row a sample: columns of numbers, one of labels, maybe one of owners.

    Labels are whole numbers from 0, or texts, whose order gives the numbers.

    Args:
        root: the file.
        label: column of the labels.
        group: column of the natural owners (whole numbers or texts), or None.
        features: columns of the features; None takes all other columns of numbers, in their order.
        test: file of the test set, by its path or by its name beside `root`; None takes a share of
            each class of `root`.
        test_fraction: that share, the same samples in every experiment.
        normalise: give each feature mean 0 and standard deviation 1 over the training rows; what is
            constant there becomes 0.
        shape: of one sample, whose product is the number of features; None leaves them a row.

    Raises:
        ConfigError: no root, or an option that does not fit.
        DataError: a file that is missing or damaged, a column that is missing or not of numbers,
            an empty or infinite value, or labels that break a rule.
    """
    path = Path(check_root(root, "parquet", "a Parquet file"))
    _check_names(label, group, features, test)
    check_bools(normalise=normalise)
    check_fraction("test_fraction", test_fraction)
    table = Table(path)
    columns = _others(table, label, group) if features is None else list(features)
    sides = _sides(shape, len(columns))
    y, names = _labels(table, label)
    owners = None if group is None else np.array(table.keys(group))
    held = np.zeros(len(y), np.bool_)
    if test is None:
        held = stratified(y, test_fraction, "parquet test set")
    scales = table.moments(columns, ~held) if normalise else None
    x = table.numbers(columns, scales)
    if test is None:
        owners = None if owners is None else owners[~held]
        x, test_x, y, test_y = x[~held], x[held], y[~held], y[held]
    else:
        other = Table(_beside(path, test))
        test_x, test_y = other.numbers(columns, scales), _known_labels(other, label, y, names)
    groups = None if owners is None else np.unique(owners, return_inverse=True)[1].astype(np.int64)
    classes = int(y.max()) + 1 if names is None else len(names)
    train_x, test_x = (part.reshape(-1, *sides) for part in (x, test_x))
    return Dataset("parquet", train_x, y, test_x, test_y, classes, groups)


def _check_names(label: Any, group: Any, features: Any, test: Any) -> None:
    if not isinstance(label, str):
        raise refuse("label", "be the name of a column", label)
    for field, value in (("group", group), ("test", test)):
        if value is not None and not isinstance(value, str):
            raise refuse(field, "be text or null", value)
    if features is None:
        return
    if (
        not isinstance(features, list | tuple)
        or not features
        or not all(isinstance(name, str) for name in features)
        or len(set(features)) < len(features)
    ):
        raise refuse("features", "be a list of columns, each once", features)
    for name in (label, group):
        if name in features:
            raise refuse("features", f"leave out the labels and the owners, {name!r}", features)


def _others(table: Table, label: str, group: str | None) -> list[str]:
    """All columns of numbers but the labels and the owners."""
    names = [name for name in table.numeric() if name not in (label, group)]
    if not names:
        raise DataError(f"{table.path}: must have a column of numbers beside {label!r}, got none")
    return names


def _sides(shape: Sequence[int] | None, features: int) -> tuple[int, ...]:
    if shape is None:
        return (features,)
    sides = check_sizes("shape", shape)
    if math.prod(sides) != features:
        raise refuse("shape", f"have the product {features}, the number of features", shape)
    return sides


def _labels(table: Table, column: str) -> tuple[Integers, list[str] | None]:
    """Labels from 0, and the names in their order if the file has texts."""
    values = table.keys(column)
    if isinstance(values, list):
        names = sorted(set(values))
        return _numbered(values, names), names
    for row in (int(np.argmin(values)), int(np.argmax(values))):
        if not 0 <= values[row] < MOST_CLASSES:
            raise DataError(
                f"{table.path}: column {column!r} must hold labels in [0, {MOST_CLASSES}), "
                f"got {values[row]} in row {row}"
            )
    return values, None


def _known_labels(
    table: Table, column: str, train_y: Integers, names: list[str] | None
) -> Integers:
    """The labels of a test file, all of which are classes of the training file.

    Args:
        table: the test file.
        column: of the labels.
        train_y: labels of the training file.
        names: its names of the classes, or None if its labels are numbers.
    """
    values = table.keys(column)
    must = f"{table.path}: column {column!r} must hold"
    if isinstance(values, list) != (names is not None):
        raise DataError(f"{must} {'numbers' if names is None else 'texts'}, as the training file")
    known: Any = range(int(train_y.max()) + 1) if names is None else set(names)
    for row, value in enumerate(np.asarray(values).tolist()):
        if value not in known:
            raise DataError(f"{must} classes of the training file, got {value!r} in row {row}")
    return _numbered(values, names) if isinstance(values, list) and names else np.asarray(values)


def _numbered(values: list[str], names: list[str]) -> Integers:
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers[value] for value in values], np.int64)


def _beside(path: Path, test: str) -> Path:
    """The test file: `test` as it stands, else beside `path`."""
    places = (Path(test), path.parent / test)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        looked = " and ".join(str(place.absolute()) for place in places)
        raise DataError(f"data.options.test must be a Parquet file, got no file at {looked}")
    return found
