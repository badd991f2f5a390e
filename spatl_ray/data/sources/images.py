"""A data set of image files, a folder a class."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from spatl_ray.data import pixels
from spatl_ray.data.dataset import Dataset
from spatl_ray.data.holdout import stratified
from spatl_ray.data.options import check_bools, check_fraction, check_root, check_sizes
from spatl_ray.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
"""Pillow's modes of images that become 8 bits a channel without loss of range."""

LAYOUT = "a folder of train/CLASS/* and test/CLASS/*, or of CLASS/*"


def images(
    root: str | None = None,
    size: Sequence[int] | None = None,
    grey: bool = False,
    test_fraction: float = 0.2,
) -> Dataset:
    """A folder of images: train/CLASS/* and test/CLASS/*, or CLASS/*; the classes are its folders.

    The classes' names in order give the labels. Each channel is normalised by the mean and the
    standard deviation of the training images.

    Args:
        root: the folder.
        size: (height, width) to which all images are resized; None takes them as they are, and
            all must be of one size.
        grey: make them grey, one channel; otherwise three, red, green and blue.
        test_fraction: share of each class that becomes the test set where there are no folders
            train and test; it is the same in every experiment.

    Raises:
        ConfigError: no root, or an option out of its range.
        DataError: folders that are missing or do not fit together, or an image that is damaged or
            of another size.
    """
    top = Path(check_root(root, "images", LAYOUT))
    sides = None if size is None else check_sizes("size", size, length=2)
    check_bools(grey=grey)
    check_fraction("test_fraction", test_fraction)
    parts = _parts(top)
    classes = _classes(parts)
    listed = [(path, label, part) for part in parts for path, label in _files(part, classes)]
    x = _read([path for path, _, _ in listed], grey, sides)
    y = np.array([label for _, label, _ in listed], np.int64)
    if len(parts) == 2:
        test = np.array([part == parts[1] for _, _, part in listed])
    else:
        test = stratified(y, test_fraction, "images test set")
    train_x, test_x = pixels.standardised(x[~test], x[test])
    return Dataset("images", train_x, y[~test], test_x, y[test], len(classes))


def _parts(top: Path) -> list[Path]:
    """The folders train and test, or the one folder of both."""
    if not top.is_dir():
        raise DataError(f"{top.absolute()}: no such folder; data.root must be {LAYOUT}")
    parts = [top / "train", top / "test"]
    there = [part for part in parts if part.is_dir()]
    if len(there) == 1:
        raise DataError(f"{top}: must have folders train and test, or neither, got {there[0].name}")
    return there or [top]


def _classes(parts: list[Path]) -> list[str]:
    """The names of the classes, sorted; the same in all parts."""
    names = [sorted(each.name for each in part.iterdir() if _is_class(each)) for part in parts]
    if not names[0]:
        raise DataError(f"{parts[0]}: must have a folder for each class, got none")
    for part, others in zip(parts[1:], names[1:], strict=True):
        different = sorted(set(names[0]) ^ set(others))
        if different:
            where = part if different[0] in others else parts[0]
            raise DataError(
                f"{part}: must have the classes of {parts[0]}, got {different[0]!r} only in {where}"
            )
    return names[0]


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _files(part: Path, classes: list[str]) -> Iterator[tuple[Path, int]]:
    """(image file, label), class by class, in the order of the names."""
    for label, name in enumerate(classes):
        files = sorted(p for p in (part / name).iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            kinds = ", ".join(sorted(SUFFIXES))
            raise DataError(f"{part / name}: must hold at least one image ({kinds}), got none")
        yield from ((path, label) for path in files)


def _read(paths: list[Path], grey: bool, size: tuple[int, ...] | None) -> pixels.Bytes:
    """All images, shape (n, channels, height, width)."""
    first = _image(paths[0], grey, size)
    x = np.empty((len(paths), *first.shape), np.uint8)
    for row, path in zip(x, paths, strict=True):
        image = _image(path, grey, size)
        if image.shape != first.shape:
            raise DataError(
                f"{path}: must have the shape {first.shape} of {paths[0]}, got {image.shape}; "
                "data.options.size=[height, width] resizes all"
            )
        row[:] = image
    return x


def _image(path: Path, grey: bool, size: tuple[int, ...] | None) -> pixels.Bytes:
    """An image, shape (channels, height, width)."""
    # Imported only here: most experiments need no Pillow.
    pillow = importlib.import_module("PIL.Image")
    try:
        with pillow.open(path) as image:
            if image.mode not in EIGHT_BIT_MODES:
                raise DataError(f"{path}: must have 8 bits a channel, got mode {image.mode}")
            image = image.convert("L" if grey else "RGB")
            if size is not None:
                image = image.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
            content = np.asarray(image, np.uint8)
    # What Pillow raises for a damaged file depends on the format.
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise DataError(f"{path}: must be readable, got {type(error).__name__}: {error}") from error
    return content[np.newaxis] if grey else content.transpose(2, 0, 1)
