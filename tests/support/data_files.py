"""Writers of small data sets in the formats of the true files; seeded, with all classes in turn."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import struct
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

LEAF_ALPHABET = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"


def labels_in_turn(size: int, classes: int, generator: np.random.Generator) -> npt.NDArray[Any]:
    """Each class as often as any other, as far as `size` allows, in random order."""
    return generator.permutation(size) % classes


def idx_bytes(array: Bytes) -> bytes:
    """The IDX form of an array of unsigned bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 0x08, array.ndim, *array.shape)
    return header + array.tobytes()


def write_array(path: Path, array: Bytes) -> Path:
    """Write an array as an IDX file, compressed if its name ends in .gz."""
    content = idx_bytes(array)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_idx(
    folder: Path,
    train: int = 30,
    test: int = 12,
    classes: int = 10,
    first: int = 0,
    prefixes: Sequence[str] = ("train", "t10k"),
    suffix: str = "",
    seed: int = 0,
) -> Path:
    """The four files of MNIST or Fashion-MNIST; `suffix` is "" or ".gz", `first` a smallest label."""
    generator = np.random.default_rng(seed)
    for prefix, size in zip(prefixes, (train, test), strict=True):
        images = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = (labels_in_turn(size, classes, generator) + first).astype(np.uint8)
        write_array(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
        write_array(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
    return folder


def write_emnist(folder: Path, split: str, classes: int, suffix: str = "", **sizes: int) -> Path:
    """The four files of a split of EMNIST; the labels of split letters begin with 1."""
    prefixes = (f"emnist-{split}-train", f"emnist-{split}-test")
    first = 1 if split == "letters" else 0
    return write_idx(
        folder, classes=classes, first=first, prefixes=prefixes, suffix=suffix, **sizes
    )


def python2_pickle(value: object) -> bytes:
    """A pickle as Python 2 and NumPy 1 wrote it (protocol 2, byte strings), as CIFAR's are."""
    return b"\x80\x02" + _pickled(value) + b"."


def _pickled(value: object) -> bytes:
    match value:
        case str():
            return _byte_string(value.encode("latin1"))
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"](" + b"".join(map(_pickled, value)) + b"e"
        case dict():
            return (
                b"}(" + b"".join(_pickled(each) for item in value.items() for each in item) + b"u"
            )
        case np.ndarray():
            return _pickled_array(value)
    raise TypeError(f"no form for a {type(value).__name__}")


def _byte_string(content: bytes) -> bytes:
    if len(content) < 256:
        return b"U" + bytes([len(content)]) + content
    return b"T" + struct.pack("<i", len(content)) + content


def _pickled_array(array: Bytes) -> bytes:
    """_reconstruct(ndarray, (0,), "b"), then the state (1, shape, dtype("u1"), False, bytes)."""
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    dtype = (
        b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\0tb"
    )
    shape = b"(" + b"".join(map(_pickled, array.shape)) + b"t"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + _byte_string(array.tobytes()) + b"tb"


def write_cifar10(
    folder: Path, per_batch: int = 8, test: int = 12, seed: int = 0, archive: bool = False
) -> Path:
    """Five training batches, the test batch and the names, in a folder or in its archive."""
    generator = np.random.default_rng(seed)
    sizes = {f"data_batch_{i}": per_batch for i in range(1, 6)} | {"test_batch": test}
    batches = {name: _cifar_batch(name, {"labels": 10}, n, generator) for name, n in sizes.items()}
    names = {"label_names": [f"class {i}" for i in range(10)], "num_cases_per_batch": per_batch}
    batches["batches.meta"] = names
    packed = "cifar-10-python.tar.gz" if archive else None
    return _write_batches(folder, "cifar-10-batches-py", packed, batches)


def write_cifar100(
    folder: Path, train: int = 200, test: int = 100, seed: int = 0, archive: bool = False
) -> Path:
    """The training and the test batch and the names, in a folder or in its archive."""
    generator = np.random.default_rng(seed)
    keys = {"fine_labels": 100, "coarse_labels": 20}
    batches = {
        name: _cifar_batch(name, keys, size, generator)
        for name, size in (("train", train), ("test", test))
    }
    batches["meta"] = {"fine_label_names": [f"class {i}" for i in range(100)]}
    packed = "cifar-100-python.tar.gz" if archive else None
    return _write_batches(folder, "cifar-100-python", packed, batches)


def _cifar_batch(
    name: str, keys: dict[str, int], size: int, generator: np.random.Generator
) -> dict[str, Any]:
    labels = {
        key: labels_in_turn(size, classes, generator).tolist() for key, classes in keys.items()
    }
    return {
        "data": generator.integers(0, 256, (size, 3072), dtype=np.uint8),
        **labels,
        "batch_label": name,
        "filenames": [f"{i}.png" for i in range(size)],
    }


def _write_batches(folder: Path, inner: str, archive: str | None, batches: dict[str, Any]) -> Path:
    contents = {f"{inner}/{name}": python2_pickle(batch) for name, batch in batches.items()}
    folder.mkdir(parents=True, exist_ok=True)
    if archive is not None:
        write_tar(folder / archive, contents)
        return folder
    (folder / inner).mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, contents: dict[str, bytes]) -> Path:
    """A compressed archive of files, its last file first."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in reversed(contents.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_svhn(
    folder: Path, train: int = 30, test: int = 12, extra: int = 0, seed: int = 0
) -> Path:
    """The MATLAB files of the training and the test part, and of the extra part if it has images."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for part, size in (("train", train), ("test", test), ("extra", extra)):
        if size:
            write_mat(
                folder / f"{part}_32x32.mat",
                X=generator.integers(0, 256, (32, 32, 3, size), dtype=np.uint8),
                y=(labels_in_turn(size, 10, generator) + 1).astype(np.uint8)[:, np.newaxis],
            )
    return folder


def write_mat(path: Path, **arrays: npt.NDArray[Any]) -> Path:
    """A compressed MATLAB file of version 5."""
    importlib.import_module("scipy.io").savemat(path, arrays, do_compression=True)
    return path


def write_leaf(folder: Path, name: str, users: dict[str, tuple[list[Any], list[Any]]]) -> Path:
    """One JSON file of LEAF, {user: (x, y)}, below a part's folder."""
    content = {
        "users": list(users),
        "num_samples": [len(y) for _, y in users.values()],
        "user_data": {user: {"x": x, "y": y} for user, (x, y) in users.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def write_leaf_femnist(
    folder: Path, users: int = 6, samples: int = 12, test: int = 3, files: int = 2, seed: int = 0
) -> Path:
    """FEMNIST of LEAF: `samples` and `test` samples for each writer, in files of some writers."""
    generator = np.random.default_rng(seed)

    def draw(size: int) -> tuple[list[Any], list[Any]]:
        x = generator.random((size, 784)).round(3)
        return x.tolist(), generator.integers(0, 62, size).tolist()

    names = [f"f{user:04d}_{generator.integers(99):02d}" for user in range(users)]
    return _write_parts(folder, names, (samples, test), files, draw)


def write_leaf_shakespeare(
    folder: Path, users: int = 4, samples: int = 12, test: int = 3, files: int = 2, seed: int = 0
) -> Path:
    """Shakespeare of LEAF: `samples` and `test` samples for each speaker."""
    generator = np.random.default_rng(seed)

    def draw(size: int) -> tuple[list[Any], list[Any]]:
        text = "".join(generator.choice(list(LEAF_ALPHABET), size + 80))
        return [text[i : i + 80] for i in range(size)], list(text[80:])

    names = [f"THE_PLAY_SPEAKER_{user}" for user in range(users)]
    return _write_parts(folder, names, (samples, test), files, draw)


def _write_parts(
    folder: Path, names: list[str], sizes: Iterable[int], files: int, draw: Any
) -> Path:
    """The folders train and test; the last users come first, and are dealt to the files in turn."""
    for part, size in zip(("train", "test"), sizes, strict=True):
        for number in range(files):
            own = {name: draw(size) for name in names[::-1][number::files]}
            write_leaf(folder / part, f"all_data_{number}_niid_0_keep_0_{part}_9", own)
    return folder


def write_image_folder(
    folder: Path,
    classes: Sequence[str] = ("ant", "bee", "cat"),
    train: int = 6,
    test: int = 2,
    size: tuple[int, int] = (8, 10),
    mode: str = "RGB",
    suffix: str = ".png",
    seed: int = 0,
) -> Path:
    """Folders train/CLASS and test/CLASS of images of `size` (height, width); test=0: CLASS only."""
    generator = np.random.default_rng(seed)
    channels = (3,) if mode == "RGB" else ()
    for part, count in (("train", train), ("test", test)) if test else (("", train),):
        for name in classes:
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (*size, *channels), dtype=np.uint8)
                write_image(folder / part / name / f"{number}{suffix}", pixels)
    return folder


def write_image(path: Path, pixels: npt.NDArray[Any]) -> Path:
    """One image; its format by its name."""
    importlib.import_module("PIL.Image").fromarray(pixels).save(path)
    return path


def write_parquet(
    folder: Path,
    rows: int = 60,
    features: int = 4,
    classes: int = 3,
    groups: int = 0,
    text: bool = False,
    name: str = "data.parquet",
    seed: int = 0,
) -> Path:
    """A file with columns x0.., label and, if there are groups, group; gives its path.

    With `text` labels and groups are texts.
    """
    generator = np.random.default_rng(seed)
    columns: dict[str, Any] = {f"x{j}": generator.normal(j, 1 + j, rows) for j in range(features)}
    columns["label"] = labels_in_turn(rows, classes, generator)
    if groups:
        columns["group"] = labels_in_turn(rows, groups, generator)
    for key in {"label", "group"} & columns.keys() if text else ():
        columns[key] = [f"{key} {value}" for value in columns[key]]
    return write_table(folder / name, columns)


def write_table(path: Path, columns: dict[str, Any]) -> Path:
    """A Parquet file of these columns, in row groups of 16 rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = importlib.import_module("pyarrow").table(columns)
    importlib.import_module("pyarrow.parquet").write_table(table, path, row_group_size=16)
    return path
