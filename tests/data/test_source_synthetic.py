"""fcube and synthetic_images: what is drawn follows its definition, and only its key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.config import Data
from spatl_ray.data.datasets import Dataset, load_dataset
from spatl_ray.data.sources.synthetic import prototypes
from spatl_ray.errors import ConfigError


def load(name: str, seed: int = 0, **options: Any) -> Dataset:
    return load_dataset(Data(name=name, options=options), seed)


def test_fcube_is_uniform_in_the_cube_and_off_the_planes() -> None:
    """Means, variances and octants of n uniform points, within four standard deviations."""
    loaded = load("fcube", samples=40_000)
    x = loaded.train_x
    assert (x.dtype, x.shape, loaded.classes) == (np.float32, (40_000, 3), 2)
    assert np.abs(x).max() <= 1
    assert (x != 0).all()
    assert np.abs(x.mean(axis=0)).max() < 4 * np.sqrt(1 / 3 / 40_000)
    # The variance of x^2 is E x^4 - (E x^2)^2 = 1/5 - 1/9.
    assert np.abs((x**2).mean(axis=0) - 1 / 3).max() < 4 * np.sqrt((1 / 5 - 1 / 9) / 40_000)
    octants = np.bincount((x > 0) @ np.array([4, 2, 1]), minlength=8)
    assert np.abs(octants - 5000).max() < 4 * np.sqrt(40_000 * 1 / 8 * 7 / 8)


@pytest.mark.parametrize("part", ["train", "test"])
def test_fcubes_label_is_the_side_of_the_first_plane(part: str) -> None:
    loaded = load("fcube")
    x, y = getattr(loaded, f"{part}_x"), getattr(loaded, f"{part}_y")
    assert len(y) == {"train": 4000, "test": 1000}[part]
    assert np.array_equal(y == 1, x[:, 0] > 0)
    assert set(y.tolist()) == {0, 1}


@pytest.mark.parametrize("name", ["fcube", "synthetic_images"])
def test_the_options_seed_decides_and_not_the_experiments(name: str) -> None:
    first = load(name, 0, samples=50)
    assert load(name, 1, samples=50).fingerprint == first.fingerprint
    other = load_dataset(Data(name=name, options={"samples": 50, "seed": 1}), 0)
    assert other.fingerprint != first.fingerprint
    assert np.array_equal(load(name, 0, samples=60).test_x, first.test_x)
    assert not np.array_equal(first.train_x[:50], first.test_x[:50])


def nearest_prototype_accuracy(loaded: Dataset, patterns: np.ndarray[Any, Any]) -> float:
    """All prototypes have the same norm, so the nearest has the largest inner product."""
    products = loaded.test_x.reshape(len(loaded.test_y), -1) @ patterns.reshape(len(patterns), -1).T
    return float((products.argmax(axis=1) == loaded.test_y).mean())


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (1, 8, 12)])
def test_accuracy_falls_with_difficulty(shape: tuple[int, ...]) -> None:
    accuracies = [
        nearest_prototype_accuracy(
            load("synthetic_images", shape=list(shape), samples=10, difficulty=difficulty),
            prototypes(shape, classes=10, seed=0),
        )
        for difficulty in (0, 2, 4, 8, 16, 64, 1000)
    ]
    assert accuracies[0] > 0.98
    assert accuracies == sorted(accuracies, reverse=True)
    assert 0.05 < accuracies[-1] < 0.2  # Ten classes: at last it is chance.


def test_without_noise_a_picture_is_its_shifted_prototype_times_a_contrast() -> None:
    loaded = load("synthetic_images", shape=[2, 16, 32], samples=40, difficulty=0)
    patterns = prototypes((2, 16, 32), classes=10, seed=0)
    for x, y in zip(loaded.train_x, loaded.train_y, strict=True):
        contrast = np.sqrt((x**2).mean())  # The prototype's mean square is 1.
        assert 0.75 <= contrast <= 1.25
        shifted = (
            np.roll(patterns[y], (i, j), axis=(1, 2)) for i in (-1, 0, 1) for j in range(-2, 3)
        )
        assert min(np.abs(x - contrast * each).max() for each in shifted) < 1e-5


@settings(max_examples=10)
@given(difficulty=st.floats(0, 100))
def test_pictures_have_unit_variance_on_average(difficulty: float) -> None:
    """E a^2 = 1 + 1/48 for a uniform in [0.75, 1.25]; the mean square is (E a^2 + d^2)/(1 + d^2)."""
    loaded = load("synthetic_images", samples=500, test_samples=1, difficulty=difficulty)
    expected = (1 + 1 / 48 + difficulty**2) / (1 + difficulty**2)
    assert abs((loaded.train_x.astype(np.float64) ** 2).mean() - expected) < 0.05


def test_the_noise_is_standard_normal_times_the_difficulty() -> None:
    quiet, loud = (load("synthetic_images", samples=400, difficulty=d) for d in (0, 3.0))
    noise = (loud.train_x * np.sqrt(10) - quiet.train_x) / 3
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 0.01
    assert np.array_equal(quiet.train_y, loud.train_y)


def test_prototypes_are_smooth_and_of_mean_square_1() -> None:
    patterns = prototypes((3, 32, 32), classes=7, seed=3).astype(np.float64)
    assert patterns.shape == (7, 3, 32, 32)
    np.testing.assert_allclose((patterns**2).mean(axis=(1, 2, 3)), 1, rtol=1e-5)
    spectrum = np.abs(np.fft.fft2(patterns))
    frequency = np.abs(np.fft.fftfreq(32, 1 / 32))
    high = (frequency > 2)[:, np.newaxis] | (frequency > 2)
    assert spectrum[..., high].max() < 1e-3 * spectrum.max()


@given(samples=st.integers(1, 40), classes=st.integers(2, 12))
@settings(max_examples=15)
def test_classes_are_as_equal_as_can_be(samples: int, classes: int) -> None:
    loaded = load(
        "synthetic_images", shape=(1, 4, 4), classes=classes, samples=samples, test_samples=1
    )
    counts = np.bincount(loaded.train_y, minlength=classes)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("fcube", {"samples": 0}, "samples must be an integer of at least 1, got 0"),
        ("fcube", {"test_samples": 2.5}, "test_samples must be an integer of at least 1, got 2.5"),
        ("fcube", {"samples": True}, "samples must be an integer of at least 1, got True"),
        ("fcube", {"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ("synthetic_images", {"classes": 1}, "classes must be an integer of at least 2, got 1"),
        ("synthetic_images", {"difficulty": -0.1}, "difficulty must be finite and .*, got -0.1"),
        ("synthetic_images", {"shape": [16, 16]}, r"shape must be a list of 3 positive integers"),
        ("synthetic_images", {"shape": [1, 0, 4]}, r"shape must be .*, got \[1, 0, 4\]"),
        ("synthetic_images", {"shape": 16}, "shape must be a list of 3 positive integers, got 16"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.options\.{rule}"):
        load_dataset(Data(name=name, options=options), seed=0)
