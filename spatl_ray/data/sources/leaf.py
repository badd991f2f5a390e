"""LEAF's data sets with natural owners: femnist and shakespeare."""

from __future__ import annotations

from typing import Any

import numpy as np

from spatl_ray.arrays import Floats, Integers
from spatl_ray.data import pixels
from spatl_ray.data.dataset import Dataset
from spatl_ray.data.leaf_json import leaf_files, read_part

SIDE = 28
FEMNIST_CLASSES = 62

ALPHABET = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
"""LEAF's 80 symbols; a symbol's id is its place."""

LENGTH = 80
"""Symbols of one sample."""

TOKENS = np.full(256, -1, np.int64)
TOKENS[np.frombuffer(ALPHABET.encode("latin1"), np.uint8)] = np.arange(len(ALPHABET))


def femnist(root: str | None = None) -> Dataset:
    """Handwritten digits and letters of 28 x 28 pixels, 62 classes, by writer; LEAF's JSON files.

    The files hold grey values in [0, 1], where ink is 0 and paper 1. They are normalised by the
    mean and standard deviation of all training pixels. The groups are the writers.

    Args:
        root: folder of the folders train and test; None looks in the usual places.

    Raises:
        DataError: files that are missing or damaged, or samples that break a rule.

    References:
        Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097, 2018.
    """
    folder = leaf_files("femnist").locate(root)
    train, test = (read_part(folder / part, _images) for part in ("train", "test"))
    mean, std = pixels.moments(train.x)
    for part in (train, test):
        pixels.shift_and_scale(part.x, mean, std)
    return Dataset("femnist", train.x, train.y, test.x, test.y, FEMNIST_CLASSES, train.owners)


def shakespeare(root: str | None = None) -> Dataset:
    """The next of 80 characters after 80 of a play, by speaker; LEAF's JSON files.

    Samples are token ids, shape (80,); labels are token ids as well. The groups are the speakers.

    Args:
        root: folder of the folders train and test; None looks in the usual places.

    Raises:
        DataError: files that are missing or damaged, or samples that break a rule.

    References:
        Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097, 2018.
    """
    folder = leaf_files("shakespeare").locate(root)
    train, test = (read_part(folder / part, _texts) for part in ("train", "test"))
    size = len(ALPHABET)
    return Dataset(
        "shakespeare", train.x, train.y, test.x, test.y, size, train.owners, vocabulary=size
    )


def _images(x: list[Any], y: list[Any]) -> tuple[Floats, Integers]:
    """A writer's images, shape (n, 1, 28, 28), and labels."""
    rule = f"x must be {SIDE * SIDE} numbers a sample"
    try:
        with np.errstate(over="ignore"):  # What becomes infinite is refused below.
            rows = np.array(x, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{rule}, got something else ({error})") from error
    if rows.shape != (len(x), SIDE * SIDE):
        raise ValueError(f"{rule}, got shape {rows.shape}")
    if not ((rows >= 0) & (rows <= 1)).all():
        raise ValueError(f"x must be in [0, 1], got values from {rows.min()} to {rows.max()}")
    for label in y:
        if not isinstance(label, int) or not 0 <= label < FEMNIST_CLASSES:
            raise ValueError(f"y must be integers in [0, {FEMNIST_CLASSES}), got {label!r}")
    return rows.reshape(-1, 1, SIDE, SIDE), np.array(y, np.int64)


def _texts(x: list[Any], y: list[Any]) -> tuple[Integers, Integers]:
    """A speaker's token ids, shape (n, 80), and the ids that follow."""
    return _ids("x", x, LENGTH), _ids("y", y, 1)[:, 0]


def _ids(field: str, texts: list[Any], length: int) -> Integers:
    """The ids of the symbols of texts of one length, shape (n, length)."""
    for text in texts:
        if not isinstance(text, str) or len(text) != length:
            got = f"{len(text)}" if isinstance(text, str) else f"a {type(text).__name__}"
            raise ValueError(f"{field} must be texts of {length} symbols, got {got}")
    joined = "".join(texts)
    # What Latin-1 lacks becomes "?", so that positions stay; the alphabet's own "?" is unharmed.
    ids = TOKENS[np.frombuffer(joined.encode("latin1", "replace"), np.uint8)]
    unknown = set(joined) - set(ALPHABET)
    if unknown:
        raise ValueError(f"{field} must be of LEAF's {len(ALPHABET)} symbols, got {min(unknown)!r}")
    return ids.reshape(len(texts), length)
