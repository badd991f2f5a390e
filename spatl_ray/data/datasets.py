"""Data sets as arrays: the bundled digits, Fashion-MNIST, and own ones by dotted name."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from spatl_ray import faults, plugins, seeding
from spatl_ray.config import Data
from spatl_ray.data import idx
from spatl_ray.errors import ConfigError, DataError

Features = npt.NDArray[np.float32] | npt.NDArray[np.int64]
Integers = npt.NDArray[np.int64]

FASHION_MEAN, FASHION_STD = 0.2860, 0.3530
"""Of the 60,000 training images of Fashion-MNIST, pixels in [0, 1]."""


@dataclass(frozen=True)
class SampleSpec:
    """What a model must know of its data.

    Attributes:
        shape: of one sample.
        classes: number of labels.
        vocabulary: number of token ids, if samples are tokens; None for real features.
    """

    shape: tuple[int, ...]
    classes: int
    vocabulary: int | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set with a global test set that no client ever holds.

    Attributes:
        name: what it is called in the results.
        train_x: normalised training features, float32, or token ids, int64; shape (n, *shape).
        train_y: training labels in [0, classes), int64, shape (n,).
        test_x: those of the global test set, shape (m, *shape).
        test_y: labels of the global test set, int64, shape (m,).
        classes: number of classes.
        groups: natural owner (e.g. writer) of each training sample, int64, shape (n,), or None.
        vocabulary: number of token ids, or None for real features.

    Raises:
        DataError: on construction, if the arrays break one of the rules above, if features are not
            finite, or if a part holds no sample.
    """

    name: str
    train_x: Features
    train_y: Integers
    test_x: Features
    test_y: Integers
    classes: int
    groups: Integers | None = None
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        _check_part(self, "train", self.train_x, self.train_y)
        _check_part(self, "test", self.test_x, self.test_y)
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            raise _broken(
                self, "test_x", f"have train_x's shape a sample {self.shape}", self.test_x.shape[1:]
            )
        if self.groups is not None:
            _check_array(self, "groups", self.groups, np.int64)
            if self.groups.shape != self.train_y.shape:
                raise _broken(self, "groups", f"have shape {self.train_y.shape}", self.groups.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.train_x.shape[1:]

    @property
    def spec(self) -> SampleSpec:
        """What a model must know."""
        return SampleSpec(self.shape, self.classes, self.vocabulary)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of a SHA-256 over the arrays' bytes, their shapes, and `classes`."""
        arrays = (self.train_x, self.train_y, self.test_x, self.test_y)
        owners = [] if self.groups is None else [self.groups]
        return digest(str(self.classes), *arrays, *owners)


def digest(*parts: str | npt.NDArray[np.generic]) -> str:
    """Sixteen hex digits of a SHA-256 over texts and arrays (their types, shapes and bytes)."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            state.update(part.encode() + b"\0")
        else:
            state.update(f"{part.dtype.str}{part.shape}\0".encode())
            state.update(np.ascontiguousarray(part).data)
    return state.hexdigest()[:16]


def _broken(dataset: Dataset, field: str, rule: str, got: object) -> DataError:
    return DataError(f"data set {dataset.name!r}: {field} must {rule}, got {got}")


def _check_array(dataset: Dataset, field: str, array: object, dtype: type[np.generic]) -> None:
    """Annotations do not bind an own loader: check what it really returned."""
    rule = f"be a NumPy array of {dtype.__name__}"
    if not isinstance(array, np.ndarray):
        raise _broken(dataset, field, rule, f"a {type(array).__name__}")
    if array.dtype != dtype:
        raise _broken(dataset, field, rule, f"one of {array.dtype}")


def _check_part(dataset: Dataset, part: str, x: Features, y: Integers) -> None:
    _check_array(dataset, f"{part}_x", x, np.float32 if dataset.vocabulary is None else np.int64)
    _check_array(dataset, f"{part}_y", y, np.int64)
    if x.ndim < 2 or len(x) < 1:
        raise _broken(dataset, f"{part}_x", "have shape (n, *shape) with n >= 1", x.shape)
    if y.shape != x.shape[:1]:
        raise _broken(dataset, f"{part}_y", f"have shape {x.shape[:1]} as {part}_x", y.shape)
    if (
        dataset.vocabulary is not None
        and x.size
        and not 0 <= x.min() <= x.max() < dataset.vocabulary
    ):
        got = f"ids from {x.min()} to {x.max()}"
        raise _broken(dataset, f"{part}_x", f"be token ids in [0, {dataset.vocabulary})", got)
    if not np.isfinite(x).all():
        sample = int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(axis=1)))
        raise _broken(dataset, f"{part}_x", "be finite", f"NaN or infinity in sample {sample}")
    for extreme in (y.min(), y.max()):
        if not 0 <= extreme < dataset.classes:
            raise _broken(dataset, f"{part}_y", f"be in [0, {dataset.classes})", extreme)


def load_dataset(config: Data, seed: int) -> Dataset:
    """The data set that an experiment asks for.

    Args:
        config: name, place, size and options of the data set.
        seed: the experiment's seed; it draws the subset of `config.samples` training samples.

    Raises:
        ConfigError: an unknown name, options that do not fit, or more samples than there are.
        DataError: files that are missing or damaged, or arrays that break a rule of `Dataset`.
    """
    if plugins.is_dotted(config.name):
        dataset = _own(config)
    elif config.name not in BUILT_IN:
        raise _unknown(config.name)
    elif config.options:
        raise ConfigError(
            f"data.options must be empty for the built-in data set {config.name}, "
            f"got {config.options}"
        )
    else:
        dataset = BUILT_IN[config.name](config)
    return dataset if config.samples is None else _subset(dataset, config.samples, seed)


def _unknown(name: str) -> ConfigError:
    near = faults.nearest(name, BUILT_IN)
    hint = f"; did you mean {near!r}?" if near else ""
    return ConfigError(
        f"data.name must be one of {', '.join(BUILT_IN)} or package.module:loader, got {name!r}{hint}"
    )


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


def _own(config: Data) -> Dataset:
    loader = plugins.load(config.name, "data.name")
    try:
        inspect.signature(loader).bind(**config.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"data.options must fit the arguments of {config.name}, got {config.options} ({error})"
        ) from error
    dataset = loader(**config.options)
    if not isinstance(dataset, Dataset):
        raise ConfigError(
            f"data.name must name a loader that returns a Dataset, got {config.name!r}, "
            f"which returns a {type(dataset).__name__}"
        )
    return dataset


def _digits(_: Data) -> Dataset:
    """The 1,797 8x8 digits of scikit-learn; a fixed fifth of each class is the test set.

    References:
        Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test part).
    """
    # Imported only here: scikit-learn takes seconds to import.
    bundled = importlib.import_module("sklearn.datasets").load_digits()
    images, labels = bundled.images[:, np.newaxis], bundled.target.astype(np.int64)
    test = _stratified_fifth(labels)
    mean, std = images[~test].mean(), images[~test].std()
    x = ((images - mean) / std).astype(np.float32)
    return Dataset("digits", x[~test], labels[~test], x[test], labels[test], classes=10)


def _stratified_fifth(labels: Integers) -> npt.NDArray[np.bool_]:
    """A fifth of each class (to the nearest), the same in every experiment."""
    keys = seeding.generator(0, "digits test set").random(len(labels))
    order = np.lexsort((keys, labels))
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(labels), np.bool_)
    chosen[order] = rank < (counts[labels[order]] + 2) // 5
    return chosen


def _fashion_mnist(config: Data) -> Dataset:
    """Fashion-MNIST: 60,000 training and 10,000 test images of 28x28 pixels in 10 classes.

    References:
        Xiao, Rasul, Vollgraf, "Fashion-MNIST", arXiv 1708.07747, 2017.
    """
    places = idx.search_places(config.root)
    folder = idx.find(places)
    if folder is None and config.root is None:
        failure = idx.download()
        folder = idx.find(places)
    else:
        failure = ""
    if folder is None:
        raise idx.not_found(places, failure)
    (train_x, train_y), (test_x, test_y) = (
        idx.read_pair(folder, part, side=28, classes=10) for part in idx.PARTS
    )
    return Dataset(
        "fashion_mnist", _normalise(train_x), train_y, _normalise(test_x), test_y, classes=10
    )


def _normalise(images: idx.Bytes) -> Features:
    """(pixel / 255 - mean) / std, shape (n, 1, height, width)."""
    # In float32 and in place: the training images in float64 would take 376 MB.
    x = images[:, np.newaxis].astype(np.float32)
    x /= np.float32(255)
    x -= np.float32(FASHION_MEAN)
    x /= np.float32(FASHION_STD)
    return x


BUILT_IN: Mapping[str, Callable[[Data], Dataset]] = {
    "digits": _digits,
    "fashion_mnist": _fashion_mnist,
}
