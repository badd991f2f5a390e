"""cifar10 and cifar100: their pickles and archives, against torchvision's own reader."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import python2_pickle, write_cifar10, write_cifar100, write_tar
from mirrors import Mirror

from spatl_ray.config import Data
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.errors import ConfigError, DataError

MEANS = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4865, 0.4409)}
STDS = {"cifar10": (0.2470, 0.2435, 0.2616), "cifar100": (0.2673, 0.2564, 0.2762)}
WRITERS = {"cifar10": write_cifar10, "cifar100": write_cifar100}


def load(name: str, root: Path | None = None, **options: Any) -> Dataset:
    return load_dataset(Data(name=name, root=root and str(root), options=options), seed=0)


def torchvisions(name: str, root: Path, train: bool) -> Any:
    """torchvision's data set of small files, which have other checksums than the true ones."""
    base = getattr(pytest.importorskip("torchvision.datasets"), name.upper())

    class Unchecked(base):  # type: ignore[misc]
        def _check_integrity(self) -> bool:
            return True

        def _load_meta(self) -> None:
            """The names of the classes are not needed."""

    return Unchecked(root, train=train)


@pytest.mark.parametrize("name", WRITERS)
def test_images_and_labels_are_torchvisions(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    loaded = load(name, tmp_path)
    assert loaded.shape == (3, 32, 32)
    for train, x, y in (
        (True, loaded.train_x, loaded.train_y),
        (False, loaded.test_x, loaded.test_y),
    ):
        source = torchvisions(name, tmp_path, train)
        expected = (source.data / 255 - MEANS[name]) / STDS[name]
        np.testing.assert_allclose(x.transpose(0, 2, 3, 1), expected, atol=1e-6)
        assert y.tolist() == source.targets


def test_coarse_labels_of_cifar100(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    fine, coarse = load("cifar100", tmp_path), load("cifar100", tmp_path, labels="coarse")
    assert (fine.classes, coarse.classes) == (100, 20)
    assert sorted(set(coarse.train_y.tolist())) == list(range(20))
    assert np.array_equal(fine.train_x, coarse.train_x)
    with pytest.raises(ConfigError, match=r"labels must be one of fine, coarse, got 'rough'"):
        load("cifar100", tmp_path, labels="rough")


@pytest.mark.parametrize("name", WRITERS)
def test_the_archive_gives_what_its_folder_gives(tmp_path: Path, name: str) -> None:
    folder = WRITERS[name](tmp_path / "folder")
    archive = WRITERS[name](tmp_path / "archive", archive=True)
    assert not any(each.is_dir() for each in archive.iterdir())
    assert load(name, archive).fingerprint == load(name, folder).fingerprint


def test_the_root_may_be_the_folder_of_the_batches(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    inner = tmp_path / "cifar-10-batches-py"
    assert load("cifar10", inner).fingerprint == load("cifar10", tmp_path).fingerprint


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py/data_batch_3").unlink()
    with pytest.raises(DataError, match="cifar-10-batches-py: lacks data_batch_3\n"):
        load("cifar10", tmp_path)


def batch(**changes: Any) -> dict[str, Any]:
    return {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 9]} | changes


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ([1], "must hold data and labels, got a list"),
        ({"labels": [1]}, "must hold data and labels, got a dict with the keys 'labels'$"),
        (
            dict.fromkeys(["fine", "x" * 99, *"abcd"], 0),
            "must hold .*, got a dict with the keys 'fine', 'x{39}, 'a', 'b', 'c', ...$",
        ),
        ({7: 1}, "must hold data and labels, got a dict without such keys"),
        (batch(data=[0]), r"data must be bytes of shape \(n, 3072\), got list"),
        (batch(data=np.zeros((2, 3), np.uint8)), r"data must be .*, got uint8 of shape \(2, 3\)"),
        (batch(labels=[0]), "labels must be a list of 2, as data has rows, got 1"),
        (batch(labels=[0, 10]), r"labels must be integers in \[0, 10\), got 10"),
        (batch(labels=[0, -1]), r"labels must be integers in \[0, 10\), got -1"),
        (batch(labels=[0, "cat"]), r"labels must be integers in \[0, 10\), got a str"),
    ],
)
def test_a_batch_that_breaks_a_rule_is_named(tmp_path: Path, content: Any, rule: str) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.write_bytes(python2_pickle(content))
    with pytest.raises(DataError, match=f"{path}: {rule}"):
        load("cifar10", tmp_path)


def test_a_truncated_batch_is_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py/data_batch_2"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=f"{path}: must be a pickle of plain values and arrays"):
        load("cifar10", tmp_path)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    write_cifar100(tmp_path, archive=True)
    path = tmp_path / "cifar-100-python.tar.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=rf"{path}: must be readable, got \w+: "):
        load("cifar100", tmp_path)
    write_tar(path, {"cifar-100-python/train": python2_pickle(batch())})
    with pytest.raises(DataError, match=f"{path}: train: must hold data and fine_labels"):
        load("cifar100", tmp_path)
    write_tar(path, {"cifar-100-python/meta": b""})
    with pytest.raises(DataError, match=f"{path}: must hold train, which it lacks"):
        load("cifar100", tmp_path)


@pytest.mark.parametrize("compress", [lzma.compress, bz2.compress, gzip.compress])
def test_damage_in_an_archive_of_any_compression_is_named(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    """Cut short, or with a byte changed: each library has errors of its own."""
    write_cifar10(tmp_path, per_batch=2, test=2, archive=True)
    path = tmp_path / "cifar-10-python.tar.gz"
    sound = compress(gzip.decompress(path.read_bytes()))
    path.write_bytes(sound)
    assert len(load("cifar10", tmp_path).train_y) == 10
    path.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(DataError, match=f"{path}: "):
        load("cifar10", tmp_path)
    for place in np.linspace(0, len(sound) - 1, 8).astype(int):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0xFF]) + sound[place + 1 :])
        with suppress(DataError):  # A trailer's byte may not be looked at.
            load("cifar10", tmp_path)


def test_a_label_of_many_digits_is_named(tmp_path: Path) -> None:
    """Python refuses to write an integer of more than 4300 digits."""
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    nine, huge = b"J\x09\0\0\0", pickle.dumps(10**5000, 2)[2:-1]
    path.write_bytes(python2_pickle(batch()).replace(nine, huge))
    with pytest.raises(
        DataError, match=rf"{path}: labels must be integers .*, got one of many digits"
    ):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_nowhere_downloads_or_says_what_failed(
    no_other_place: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = getattr(pytest.importorskip("torchvision.datasets"), name.upper())
    monkeypatch.setattr(source, "url", mirror.url + source.filename)
    with pytest.raises(DataError, match="torchvision's download into data failed: HTTPError") as e:
        load(name)
    assert f"`torchvision.datasets.{name.upper()}(FOLDER, download=True)`" in str(e.value)
    WRITERS[name](mirror.folder, archive=True)
    monkeypatch.setattr(source, "tgz_md5", None)
    monkeypatch.setattr(source, "train_list", [[file, None] for file, _ in source.train_list])
    monkeypatch.setattr(source, "test_list", [[file, None] for file, _ in source.test_list])
    monkeypatch.setattr(source, "meta", source.meta | {"md5": None})
    assert load(name).fingerprint == load(name, mirror.folder).fingerprint
    assert (no_other_place / "data" / source.base_folder).is_dir()
