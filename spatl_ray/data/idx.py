"""IDX files (LeCun, Cortes, Burges, "The MNIST database"): where they are, and what is in them."""

from __future__ import annotations

import gzip
import importlib
import math
import os
import struct
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spatl_ray.errors import DataError

Bytes = npt.NDArray[np.uint8]

PARTS = ("train", "t10k")
FILES = tuple(
    f"{part}-{kind}" for part in PARTS for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
SUBFOLDERS = ("", "fashion-mnist", "FashionMNIST/raw")
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

UNSIGNED_BYTE = 0x08


def search_places(root: str | None) -> tuple[Path, ...]:
    """The folders in which Fashion-MNIST is looked for, first one first.

    Args:
        root: the only folder to look in (and its usual subfolders); None looks in SPATL_DATA,
            ./data and the system's folder.
    """
    if root is not None:
        return _with_subfolders(Path(root))
    own = os.environ.get("SPATL_DATA")
    places = _with_subfolders(Path(own)) if own else ()
    return (*places, *_with_subfolders(Path("data")), SYSTEM_FOLDER)


def _with_subfolders(folder: Path) -> tuple[Path, ...]:
    return tuple(folder / sub for sub in SUBFOLDERS)


def find(places: Sequence[Path]) -> Path | None:
    """The first of `places` that holds all four files, plain or compressed, or None."""
    return next((place for place in places if not _missing(place)), None)


def file_in(folder: Path, name: str) -> Path:
    """The plain file `name` in `folder` if it is there, else its compressed form."""
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _missing(place: Path) -> list[str]:
    return [name for name in FILES if not file_in(place, name).is_file()]


def not_found(places: Sequence[Path], also: str = "") -> DataError:
    """The error that lists every place, what it lacks, and how to get the files.

    Args:
        places: the folders that were looked at.
        also: what else was tried, e.g. a failed download.
    """
    lines = ["fashion_mnist needs its four IDX files (plain or .gz), found in none of:"]
    for place in places:
        lacks = "lacks " + ", ".join(_missing(place)) if place.is_dir() else "no such folder"
        lines.append(f"  {place.absolute()}: {lacks}")
    lines += [also] if also else []
    lines.append(
        "get them with `apt install dataset-fashion-mnist`, or with "
        "`torchvision.datasets.FashionMNIST(FOLDER, download=True)` and data.root=FOLDER "
        "(or SPATL_DATA=FOLDER in the environment)"
    )
    return DataError("\n".join(lines))


def download() -> str:
    """Let torchvision download Fashion-MNIST into SPATL_DATA, or ./data.

    Returns:
        "" on success, else a line that says what failed.
    """
    folder = os.environ.get("SPATL_DATA") or "data"
    try:
        # Imported only here: torchvision takes seconds to import and is needed only to download.
        importlib.import_module("torchvision.datasets").FashionMNIST(folder, download=True)
    except (ImportError, OSError, RuntimeError, HTTPException) as error:
        return f"torchvision's download into {folder} failed: {type(error).__name__}: {error}"
    return ""


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


def read_pair(
    folder: Path, part: str, side: int, classes: int
) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Images, shape (n, side, side), and labels, shape (n,), of one part of a data set.

    Args:
        folder: where the files are.
        part: "train" or "t10k".
        side: height and width that the images must have, in pixels.
        classes: labels must be in [0, classes).

    Raises:
        DataError: a file is damaged, or the two do not fit together.
    """
    images_path = file_in(folder, f"{part}-images-idx3-ubyte")
    labels_path = file_in(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (side, side):
        raise DataError(
            f"{images_path}: images must be {side}x{side} pixels, "
            f"got {images.shape[1]}x{images.shape[2]}"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: must hold as many labels as {images_path.name} has images, "
            f"{len(images)}, got {len(labels)}"
        )
    if labels.size and labels.max() >= classes:
        raise DataError(f"{labels_path}: labels must be in [0, {classes}), got {labels.max()}")
    return images, labels.astype(np.int64)
