"""Small Fashion-MNIST folders in the true IDX format."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

Bytes = npt.NDArray[np.uint8]
Writer = Callable[..., Path]


def idx_bytes(array: Bytes) -> bytes:
    """The IDX form of an array of unsigned bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 0x08, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def write_idx() -> Callable[[Path, Bytes], Path]:
    """Write an array as an IDX file, compressed if its name ends in .gz."""

    def write(path: Path, array: Bytes) -> Path:
        content = idx_bytes(array)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
        return path

    return write


@pytest.fixture
def write_fashion(write_idx: Callable[[Path, Bytes], Path]) -> Writer:
    """Write a folder of 30 training and 12 test images; `suffix` is "" or ".gz"."""

    def write(folder: Path, suffix: str = "", seed: int = 0) -> Path:
        generator = np.random.default_rng(seed)
        for part, size in (("train", 30), ("t10k", 12)):
            images = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
            labels = generator.integers(0, 10, size, dtype=np.uint8)
            write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
            write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
        return folder

    return write
