"""Data sets: what is loaded, and what is refused."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from spatl_ray.config import Data
from spatl_ray.data import datasets
from spatl_ray.data.datasets import BUILT_IN, Dataset, load_dataset
from spatl_ray.data.holdout import stratified
from spatl_ray.data.sources.digits import _bundled
from spatl_ray.errors import ConfigError, DataError


def small(**changes: Any) -> Dataset:
    """Six training and three test samples of two features and two classes."""
    arrays: dict[str, Any] = {
        "train_x": np.arange(12, dtype=np.float32).reshape(6, 2),
        "train_y": np.array([0, 1, 0, 1, 0, 1]),
        "test_x": np.ones((3, 2), np.float32),
        "test_y": np.array([0, 1, 1]),
        "groups": np.array([0, 0, 1, 1, 2, 2]),
    }
    return Dataset("small", classes=2, **(arrays | changes))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(Data(name="digits"), seed=0)


def test_digits_are_normalised_on_the_training_part(digits: Dataset) -> None:
    assert digits.shape == (1, 8, 8)
    assert digits.classes == 10
    assert digits.groups is None
    assert len(digits.train_y) + len(digits.test_y) == 1797
    assert abs(digits.train_x.mean(dtype=np.float64)) < 1e-6
    assert abs(digits.train_x.std(dtype=np.float64) - 1) < 1e-6


def test_digits_are_those_of_scikit_learn(digits: Dataset) -> None:
    bundled = load_digits()
    x = np.concatenate([digits.train_x, digits.test_x]).reshape(-1, 64)
    pixels = bundled.data.astype(np.float64)
    train = stratified(bundled.target, 0.2, "digits test set")
    order = np.concatenate([np.flatnonzero(~train), np.flatnonzero(train)])
    mean, std = pixels[~train].mean(), pixels[~train].std()
    assert np.allclose(x * std + mean, pixels[order], atol=1e-4)
    assert np.array_equal(np.concatenate([digits.train_y, digits.test_y]), bundled.target[order])


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    _bundled.cache_clear()
    with pytest.raises(DataError, match="digits needs scikit-learn"):
        load_dataset(Data(name="digits"), seed=0)


def test_digits_test_set_is_a_fifth_of_each_class_and_apart(digits: Dataset) -> None:
    test, train = np.bincount(digits.test_y), np.bincount(digits.train_y)
    assert np.abs(test - (test + train) / 5).max() <= 0.5
    rows = {row.tobytes() for row in digits.train_x} & {row.tobytes() for row in digits.test_x}
    assert not rows  # No two of the bundled digits are equal, so a shared row is a shared sample.


def test_digits_do_not_depend_on_the_seed(digits: Dataset) -> None:
    assert load_dataset(Data(name="digits"), seed=5).fingerprint == digits.fingerprint


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"data\.name.*'fashion-mnist'.*mean 'fashion_mnist'"):
        load_dataset(Data(name="fashion-mnist"), seed=0)


@pytest.mark.parametrize("name", BUILT_IN)
def test_options_that_a_built_in_data_set_does_not_have_are_refused(name: str) -> None:
    for options in ({"colour": 3}, {"root": "elsewhere"}):
        rule = rf"data\.options must fit the arguments of {name}, got .*{next(iter(options))}"
        with pytest.raises(ConfigError, match=rule):
            load_dataset(Data(name=name, options=options), seed=0)


def test_the_built_in_data_sets() -> None:
    assert list(BUILT_IN) == [
        "digits", "fashion_mnist", "mnist", "emnist", "cifar10", "cifar100", "svhn",
        "femnist", "shakespeare", "fcube", "synthetic_images", "images", "parquet",
    ]  # fmt: skip


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_data_set_has_a_summary_and_defaults(name: str) -> None:
    """`spatl list` shows the summary; without options a name alone must do."""
    summary = (inspect.getdoc(BUILT_IN[name]) or "").partition("\n")[0]
    assert summary.endswith(".")
    assert len(summary) < 100
    first, *options = inspect.signature(BUILT_IN[name]).parameters.values()
    assert first.name == "root"
    assert all(option.default is not option.empty for option in (first, *options))


def test_modules_of_data_import_nothing_slow_at_their_top() -> None:
    """`spatl list` imports them: what takes long is imported where it is needed."""
    folder = Path(datasets.__file__).parent
    known = {*sys.stdlib_module_names, "numpy", "spatl_ray"}
    for path in folder.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= known, path


def test_every_built_in_data_set_loads_small_files(tmp_path: Path) -> None:
    """What the writers of true formats make is what the loaders read."""
    writers: dict[str, Callable[[Path], Path]] = {
        "fashion_mnist": data_files.write_idx,
        "mnist": data_files.write_idx,
        "emnist": lambda folder: data_files.write_emnist(folder, "balanced", 47),
        "cifar10": data_files.write_cifar10,
        "cifar100": data_files.write_cifar100,
        "svhn": data_files.write_svhn,
        "femnist": data_files.write_leaf_femnist,
        "shakespeare": data_files.write_leaf_shakespeare,
        "images": data_files.write_image_folder,
        "parquet": data_files.write_parquet,
    }
    for name in BUILT_IN:
        root = str(writers[name](tmp_path / name)) if name in writers else None
        loaded = load_dataset(Data(name=name, root=root, samples=16), seed=0)
        assert loaded.name == name
        assert len(loaded.train_y) == 16
        assert loaded.train_x.flags.c_contiguous
        assert (loaded.groups is not None) == (name in ("femnist", "shakespeare"))


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real module on sys.path with three loaders."""
    (tmp_path / "own_data_for_test.py").write_text(
        "import numpy as np\n"
        "from spatl_ray.data.datasets import Dataset\n"
        "def load(size, fill=0.0):\n"
        "    x, y = np.full((size, 2), float(fill), np.float32), np.zeros(size, np.int64)\n"
        "    return Dataset('own', x, y, x, y, classes=1)\n"
        "def array():\n"
        "    return np.zeros(3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_data_for_test"
    sys.modules.pop("own_data_for_test", None)


def test_an_own_loader_gets_its_options(own_module: str) -> None:
    loaded = load_dataset(Data(name=f"{own_module}:load", options={"size": 7}), seed=0)
    assert loaded.name == "own"
    assert loaded.train_x.shape == (7, 2)


@pytest.mark.parametrize("options", [{}, {"size": 3, "colour": "red"}])
def test_options_that_do_not_fit_are_refused(own_module: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.options must fit"):
        load_dataset(Data(name=f"{own_module}:load", options=options), seed=0)


def test_own_data_are_checked(own_module: str) -> None:
    with pytest.raises(ConfigError, match=r"returns a Dataset.*returns a ndarray"):
        load_dataset(Data(name=f"{own_module}:array"), seed=0)
    options = {"size": 3, "fill": "nan"}
    with pytest.raises(DataError, match=r"'own': train_x must be finite.*sample 0"):
        load_dataset(Data(name=f"{own_module}:load", options=options), seed=0)
    with pytest.raises(ConfigError, match=r"data\.name must name something"):
        load_dataset(Data(name=f"{own_module}:missing"), seed=0)


def bad_value(sample: int, value: float) -> np.ndarray[Any, Any]:
    x = np.zeros((6, 2), np.float32)
    x[sample, 1] = value
    return x


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"train_x": bad_value(4, np.nan)}, "train_x must be finite, got.*sample 4"),
        ({"train_x": bad_value(2, -np.inf)}, "train_x must be finite, got.*sample 2"),
        ({"test_x": np.full((3, 2), np.inf, np.float32)}, "test_x must be finite"),
        ({"train_x": np.zeros((6, 2))}, "train_x must be a NumPy array of float32, .*float64"),
        ({"train_x": [[0.0, 1.0]] * 6}, "train_x must be a NumPy array of float32, got a list"),
        ({"train_y": np.zeros(6, np.float32)}, "train_y must be a NumPy array of int64"),
        ({"train_y": np.full(6, 2)}, r"train_y must be in \[0, 2\), got 2"),
        ({"test_y": np.array([0, -1, 0])}, r"test_y must be in \[0, 2\), got -1"),
        ({"train_y": np.zeros(5, np.int64)}, r"train_y must have shape \(6,\).*\(5,\)"),
        ({"test_x": np.zeros((3, 3), np.float32)}, r"test_x must have.*\(2,\), got \(3,\)"),
        ({"test_x": np.zeros((0, 2), np.float32)}, "test_x must have shape.*without a 0"),
        ({"train_x": np.zeros(6, np.float32)}, "train_x must have shape"),
        ({"groups": np.zeros(5, np.int64)}, r"groups must have shape \(6,\), got \(5,\)"),
        ({"groups": np.zeros(6)}, "groups must be a NumPy array of int64"),
    ],
)
def test_arrays_that_break_a_rule_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(DataError, match=f"data set 'small': {rule}"):
        small(**changes)


@settings(deadline=None, max_examples=30)
@given(samples=st.integers(1, 1438), seed=st.integers(0, 2**32 - 1))
def test_a_subset_is_drawn_without_repeats(digits: Dataset, samples: int, seed: int) -> None:
    subset = load_dataset(Data(name="digits", samples=samples), seed)
    assert len(subset.train_y) == samples
    whole = {row.tobytes(): y for row, y in zip(digits.train_x, digits.train_y, strict=True)}
    drawn = {row.tobytes(): y for row, y in zip(subset.train_x, subset.train_y, strict=True)}
    assert len(drawn) == samples
    assert drawn.items() <= whole.items()
    assert np.array_equal(subset.test_x, digits.test_x)
    assert (
        load_dataset(Data(name="digits", samples=samples), seed).fingerprint == subset.fingerprint
    )


def test_another_seed_draws_another_subset() -> None:
    first, second = (load_dataset(Data(name="digits", samples=100), seed) for seed in (0, 1))
    assert first.fingerprint != second.fingerprint


def test_more_samples_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.samples must be at most 1438.*got 1439"):
        load_dataset(Data(name="digits", samples=1439), seed=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"train_x": bad_value(0, 1.0)},
        {"train_y": np.array([1, 1, 0, 1, 0, 1])},
        {"test_x": np.zeros((3, 2), np.float32)},
        {"test_y": np.array([0, 0, 0])},
        {"groups": None},
        {"classes": 3},
    ],
)
def test_the_fingerprint_covers_every_array(changes: dict[str, Any]) -> None:
    assert replace(small(), **changes).fingerprint != small().fingerprint


def test_the_fingerprint_covers_shapes_but_not_the_name() -> None:
    reshaped = {
        "train_x": small().train_x.reshape(6, 2, 1),
        "test_x": small().test_x.reshape(3, 2, 1),
    }
    assert small(**reshaped).fingerprint != small().fingerprint
    assert replace(small(), name="other").fingerprint == small().fingerprint
    strided = np.repeat(small().train_x, 2, axis=0)[::2]
    assert small(train_x=strided).fingerprint == small().fingerprint
