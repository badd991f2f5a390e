"""Fashion-MNIST: where its files are looked for, how they are read, and the download."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from spatl_ray.config import Data
from spatl_ray.data import idx
from spatl_ray.data.datasets import load_dataset
from spatl_ray.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def no_other_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without data, no system folder, no SPATL_DATA."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("SPATL_DATA", raising=False)
    monkeypatch.setattr(idx, "SYSTEM_FOLDER", empty / "system")
    return empty


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log line a request."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that an HTTP server on this machine serves to torchvision's downloader."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    source = pytest.importorskip("torchvision.datasets").FashionMNIST
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(source, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(source, "resources", [(f"{name}.gz", None) for name in idx.FILES])
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("below", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_and_normalised(
    tmp_path: Path, write_fashion: Write, suffix: str, below: str
) -> None:
    folder = write_fashion(tmp_path / below, suffix)
    loaded = load_dataset(Data(name="fashion_mnist", root=str(tmp_path)), seed=0)
    pixels, labels = idx.read_pair(folder, "train", side=28, classes=10)
    assert loaded.train_x.shape == (30, 1, 28, 28)
    assert loaded.test_x.shape == (12, 1, 28, 28)
    np.testing.assert_allclose(loaded.train_x[:, 0], (pixels / 255 - 0.2860) / 0.3530, atol=1e-6)
    assert np.array_equal(loaded.train_y, labels)


@pytest.mark.skipif(not idx.SYSTEM_FOLDER.is_dir(), reason="needs dataset-fashion-mnist")
def test_the_real_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean 0.2860 and standard deviation 0.3530 are the training images', to four digits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPATL_DATA", raising=False)
    loaded = load_dataset(Data(name="fashion_mnist"), seed=0)
    assert loaded.train_x.shape == (60_000, 1, 28, 28)
    assert loaded.test_x.shape == (10_000, 1, 28, 28)
    assert np.bincount(loaded.train_y).tolist() == [6000] * 10
    assert np.bincount(loaded.test_y).tolist() == [1000] * 10
    assert abs(loaded.train_x.mean(dtype=np.float64)) < 5e-4
    assert abs(loaded.train_x.std(dtype=np.float64) - 1) < 5e-4


def test_spatl_data_is_honoured_and_comes_before_data(
    no_other_place: Path, tmp_path: Path, write_fashion: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fashion(no_other_place / "data", seed=1)
    here = load_dataset(Data(name="fashion_mnist"), seed=0)
    own = write_fashion(tmp_path / "own", seed=2)
    monkeypatch.setenv("SPATL_DATA", str(own))
    assert load_dataset(Data(name="fashion_mnist"), seed=0).fingerprint != here.fingerprint
    explicit = load_dataset(Data(name="fashion_mnist", root=str(no_other_place / "data")), seed=0)
    assert explicit.fingerprint == here.fingerprint


@pytest.mark.parametrize("exists", [True, False])
def test_an_explicit_root_without_files_is_refused(
    no_other_place: Path, tmp_path: Path, write_fashion: Write, exists: bool
) -> None:
    write_fashion(no_other_place / "data")
    root = tmp_path / "root"
    if exists:
        root.mkdir()
    with pytest.raises(DataError, match="lacks train-images" if exists else "no such folder") as e:
        load_dataset(Data(name="fashion_mnist", root=str(root)), seed=0)
    assert str(no_other_place / "data") not in str(e.value)


@pytest.mark.usefixtures("no_other_place", "mirror")
def test_nowhere_and_no_download_lists_all_that_was_tried() -> None:
    with pytest.raises(DataError, match="torchvision's download into data failed") as error:
        load_dataset(Data(name="fashion_mnist"), seed=0)
    for place in idx.search_places(None):
        assert str(place.absolute()) in str(error.value)


@pytest.mark.parametrize("own", [None, "own"])
def test_nowhere_downloads_into_spatl_data_or_data(
    no_other_place: Path,
    mirror: Path,
    write_fashion: Write,
    monkeypatch: pytest.MonkeyPatch,
    own: str | None,
) -> None:
    if own is not None:
        monkeypatch.setenv("SPATL_DATA", own)
    write_fashion(mirror, ".gz")
    loaded = load_dataset(Data(name="fashion_mnist"), seed=0)
    expected = load_dataset(Data(name="fashion_mnist", root=str(mirror)), seed=0)
    assert loaded.fingerprint == expected.fingerprint
    assert idx.find([no_other_place / (own or "data") / "FashionMNIST/raw"]) is not None
