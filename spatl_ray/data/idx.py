"""IDX files (LeCun, Cortes, Burges, "The MNIST database")."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spatl_ray.errors import DataError

Bytes = npt.NDArray[np.uint8]

UNSIGNED_BYTE = 0x08


def file_in(folder: Path, name: str) -> Path:
    """The plain file `name` in `folder` if it is there, else its compressed form."""
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def read_idx(path: Path, dimensions: int) -> Bytes:
    """The array in an IDX file of unsigned bytes.

    The file is: two zero bytes, the type 0x08, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then exactly product(dimensions) bytes.

    Args:
        path: the file; a name that ends in .gz is decompressed.
        dimensions: how many dimensions the array must have.

    Raises:
        DataError: the file cannot be read, or breaks one of the rules above.
    """
    content = _content(path)
    start = 4 + 4 * dimensions
    magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if content[:4] != magic:
        raise DataError(f"{path}: magic must be 0x{magic.hex()}, got 0x{content[:4].hex()}")
    if len(content) < start:
        raise DataError(f"{path}: header must have {start} bytes, got {len(content)}: truncated")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected = math.prod(shape)
    if len(content) - start != expected:
        raise DataError(
            f"{path}: must hold {expected} bytes after its header for shape {shape}, "
            f"got {len(content) - start}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                return stream.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: must be readable, got {type(error).__name__}: {error}") from error


def names(prefix: str) -> tuple[str, str]:
    """The names of the two files of a part: images and labels."""
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def read_pair(
    folder: Path, prefix: str, side: int, classes: int, first: int = 0
) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Images, shape (n, side, side), and labels in [0, classes), shape (n,), of one part.

    Args:
        folder: where the files are.
        prefix: what their names begin with, e.g. "train" or "t10k".
        side: height and width that the images must have, in pixels.
        classes: number of classes.
        first: the smallest label in the file; it becomes 0.

    Raises:
        DataError: a file is damaged, or the two do not fit together.
    """
    images_path, labels_path = (file_in(folder, name) for name in names(prefix))
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1).astype(np.int64)
    if images.shape[1:] != (side, side):
        raise DataError(
            f"{images_path}: images must be {side}x{side} pixels, "
            f"got {images.shape[1]}x{images.shape[2]}"
        )
    if not len(images):
        raise DataError(f"{images_path}: must hold at least one image, got none")
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: must hold as many labels as {images_path.name} has images, "
            f"{len(images)}, got {len(labels)}"
        )
    for label in (labels.min(), labels.max()):
        if not first <= label < first + classes:
            raise DataError(
                f"{labels_path}: labels must be in [{first}, {first + classes}), got {label}"
            )
    return images, labels - first
