"""What a data set is: arrays of samples and labels, checked on construction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Features, Integers
from spatl_ray.errors import DataError

MOST_CLASSES = 10**6
"""A larger label is more likely an identifier than a class."""


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
        classes: number of classes, at most 1,000,000.
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
        _check_name(self.name)
        _check_count(self, "classes", self.classes)
        if self.vocabulary is not None:
            _check_count(self, "vocabulary", self.vocabulary)
        _check_part(self, "train", self.train_x, self.train_y)
        _check_part(self, "test", self.test_x, self.test_y)
        if self.classes > MOST_CLASSES:
            raise _broken(self, "classes", f"be at most {MOST_CLASSES}", self.classes)
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            raise _broken(
                self, "test_x", f"have train_x's shape a sample {self.shape}", self.test_x.shape[1:]
            )
        if self.groups is not None:
            _check_array(self, "groups", self.groups, np.int64)
            if self.groups.shape != self.train_y.shape:
                raise _broken(self, "groups", f"have shape {self.train_y.shape}", self.groups.shape)

    @classmethod
    def from_arrays(
        cls,
        name: str,
        train_x: npt.ArrayLike,
        train_y: npt.ArrayLike,
        test_x: npt.ArrayLike,
        test_y: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        *,
        classes: int | None = None,
        vocabulary: int | None = None,
    ) -> Dataset:
        """A data set of arrays of any common type, such as float64 features and int32 labels.

        Features become float32, or int64 where there is a vocabulary; labels and groups int64.

        Args:
            name: what it is called in the results.
            train_x: training features, or token ids if there is a vocabulary; shape (n, *shape).
            train_y: training labels, integers, shape (n,).
            test_x: those of the global test set, shape (m, *shape).
            test_y: labels of the global test set, shape (m,).
            groups: natural owner of each training sample, integers, shape (n,), or None.
            classes: number of classes; None takes the largest label plus one.
            vocabulary: number of token ids, or None for real features.

        Raises:
            DataError: a name that is no text, an array of another type, or one that breaks a rule
                of `Dataset`.
        """
        _check_name(name)
        x_type = np.float32 if vocabulary is None else np.int64
        train, test = (
            (_cast(name, f"{part}_x", x, x_type), _cast(name, f"{part}_y", y, np.int64))
            for part, x, y in (("train", train_x, train_y), ("test", test_x, test_y))
        )
        owners = None if groups is None else _cast(name, "groups", groups, np.int64)
        if classes is None:
            classes = 1 + max((int(y.max()) for _, y in (train, test) if y.size), default=0)
        return cls(name, *train, *test, classes, owners, vocabulary)

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
        """Sixteen hex digits of a SHA-256 over the arrays' bytes, shapes and types, and both counts."""
        arrays = (self.train_x, self.train_y, self.test_x, self.test_y)
        owners = [] if self.groups is None else [self.groups]
        counts = [self.classes] if self.vocabulary is None else [self.classes, self.vocabulary]
        return digest(*map(str, counts), *arrays, *owners)


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


def _cast(name: str, field: str, values: npt.ArrayLike, dtype: type[np.generic]) -> Any:
    """`values` as an array of `dtype`; real numbers do not become integers."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(
            f"data set {name!r}: {field} must be an array, got one of unequal rows ({error})"
        ) from error
    if np.ma.is_masked(values):
        raise DataError(
            f"data set {name!r}: {field} must hold a value everywhere, got a masked one"
        )
    kinds, rule = ("iu", "integers") if dtype is np.int64 else ("iuf", "real numbers")
    if array.dtype.kind not in kinds:
        raise DataError(f"data set {name!r}: {field} must hold {rule}, got {array.dtype}")
    if dtype is np.int64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError(f"data set {name!r}: {field} must be below 2^63, got {array.max()}")
    with np.errstate(over="ignore"):  # What is too large becomes infinite, and is refused later.
        return np.ascontiguousarray(array.astype(dtype, copy=False))


def _broken(dataset: Dataset, field: str, rule: str, got: object) -> DataError:
    return DataError(f"data set {dataset.name!r}: {field} must {rule}, got {got}")


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise DataError(f"name must be a text, what the data set is called, got {name!r}")


def _check_count(dataset: Dataset, field: str, count: object) -> None:
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise _broken(dataset, field, "be a positive integer", repr(count))


def _check_array(dataset: Dataset, field: str, array: object, dtype: type[np.generic]) -> None:
    """Annotations do not bind an own loader: check what it really returned."""
    rule = f"be a NumPy array of {dtype.__name__}"
    if not isinstance(array, np.ndarray):
        raise _broken(dataset, field, rule, f"a {type(array).__name__}")
    if isinstance(array, np.ma.MaskedArray):
        raise _broken(dataset, field, f"{rule} without a mask", "a masked one")
    if array.dtype != dtype:
        raise _broken(dataset, field, rule, f"one of {array.dtype}")


def _check_part(dataset: Dataset, part: str, x: Features, y: Integers) -> None:
    _check_array(dataset, f"{part}_x", x, np.float32 if dataset.vocabulary is None else np.int64)
    _check_array(dataset, f"{part}_y", y, np.int64)
    if x.ndim < 2 or x.size < 1:
        raise _broken(dataset, f"{part}_x", "have shape (n, *shape) without a 0", x.shape)
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
    bound = min(dataset.classes, MOST_CLASSES)
    for extreme in (y.min(), y.max()):
        if not 0 <= extreme < bound:
            raise _broken(dataset, f"{part}_y", f"be in [0, {bound})", extreme)
