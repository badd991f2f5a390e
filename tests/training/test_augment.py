"""Changed images equal those of a plain loop over samples, and their laws hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flat_models import LR, digits, flatten, order, split_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spatl_ray.config import Augment, Training
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ConfigError
from spatl_ray.training.augment import augmented, check_augment, draw_changes
from spatl_ray.training.local import LocalTask, Trainer

IMAGE = SampleSpec((3, 8, 6), 10)


@st.composite
def cases(draw: st.DrawFn, **fixed: Any) -> tuple[Tensor, Augment, int]:
    """Images without a 0, changes that they can have, and a seed."""
    n, channels = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    side = min(height, width)
    options = {
        "crop": draw(st.integers(0, side - 1)),
        "flip": draw(st.booleans()),
        "cutout": draw(st.integers(0, side)),
        **fixed,
    }
    seed = draw(st.integers(0, 2**32 - 1))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    values = np.random.default_rng(seed).uniform(1, 2, (n, channels, height, width))
    return torch.from_numpy(values).to(dtype), Augment(**options), seed


def change(x: Tensor, augment: Augment, seed: int) -> Tensor:
    return augmented(x, augment, np.random.default_rng(seed))


def one_by_one(x: Tensor, augment: Augment, seed: int) -> np.ndarray:
    """The definition, a sample after the other."""
    n, _, height, width = x.shape
    c, k = augment.crop, augment.cutout
    drawn = draw_changes(augment, n, height, width, np.random.default_rng(seed))
    images = []
    for image, top, left, mirrored, row, column in zip(x.numpy(), *drawn, strict=True):
        padded = np.pad(image, [(0, 0), (c, c), (c, c)], mode="reflect")
        cropped = padded[:, c + top : c + top + height, c + left : c + left + width]
        new = (cropped[:, :, ::-1] if mirrored else cropped).copy()
        up, first = row - k // 2, column - k // 2
        new[:, max(up, 0) : max(up + k, 0), max(first, 0) : max(first + k, 0)] = 0
        images.append(new)
    return np.stack(images)


@given(cases())
@settings(deadline=None, max_examples=200)
def test_a_batch_is_what_its_samples_are_one_by_one(case: tuple[Tensor, Augment, int]) -> None:
    x, before = case[0], case[0].clone()
    got = change(*case)
    assert got.dtype == x.dtype
    assert np.array_equal(got.numpy(), one_by_one(*case))
    assert torch.equal(x, before)


@given(cases(crop=0, flip=False, cutout=0))
@settings(deadline=None, max_examples=20)
def test_no_change_is_the_identity(case: tuple[Tensor, Augment, int]) -> None:
    x, _, seed = case
    assert change(*case) is x
    assert augmented(x, None, np.random.default_rng(seed)) is x


@given(cases(crop=0, flip=True, cutout=0))
@settings(deadline=None, max_examples=30)
def test_mirrored_twice_is_the_identity(case: tuple[Tensor, Augment, int]) -> None:
    x, augment, seed = case
    once = change(*case)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(once, x, strict=True))
    assert torch.equal(change(once, augment, seed), x)


@given(cases(crop=0, flip=False))
@settings(deadline=None, max_examples=60)
def test_a_cutout_is_one_to_k_times_k_pixels(case: tuple[Tensor, Augment, int]) -> None:
    x, augment, _ = case
    cut = change(*case) == 0
    pixels = cut.sum(dim=(2, 3))
    if augment.cutout == 0:
        assert not pixels.any()
        return
    assert ((pixels >= 1) & (pixels <= augment.cutout**2)).all()
    assert (cut.all(dim=1) == cut.any(dim=1)).all()
    assert torch.equal(change(*case)[~cut], x[~cut])


@given(cases())
@settings(deadline=None, max_examples=30)
def test_a_generator_decides(case: tuple[Tensor, Augment, int]) -> None:
    assert torch.equal(change(*case), change(*case))


def test_what_one_change_draws_does_not_depend_on_the_others() -> None:
    drawn = [
        draw_changes(Augment(crop=crop, flip=True, cutout=cutout), 50, 8, 8, order(3))
        for crop, cutout in [(0, 0), (3, 0), (0, 4)]
    ]
    for changes in drawn[1:]:
        assert np.array_equal(changes.mirrored, drawn[0].mirrored)
        assert np.array_equal(changes.row, drawn[0].row)


def test_every_place_is_as_likely() -> None:
    """40,000 draws: each count lies within 6 standard deviations of its expectation."""
    n = 40_000
    changes = draw_changes(Augment(crop=2, flip=True, cutout=3), n, 8, 5, order())
    for values, kinds in [
        (changes.top + 2, 5),
        (changes.left + 2, 5),
        (changes.mirrored, 2),
        (changes.row, 8),
        (changes.column, 5),
    ]:
        counts = np.bincount(values)
        assert len(counts) == kinds
        assert np.abs(counts - n / kinds).max() < 6 * np.sqrt(n / kinds)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [None, Augment(), Augment(crop=5, flip=True, cutout=6)])
def test_what_fits_is_accepted(augment: Augment | None) -> None:
    check_augment(augment, IMAGE)


@pytest.mark.parametrize("spec", [SampleSpec((64,), 2), SampleSpec((3, 4, 4), 2, vocabulary=9)])
def test_no_change_is_accepted_for_anything(spec: SampleSpec) -> None:
    check_augment(Augment(), spec)
    check_augment(None, spec)


def test_too_large_changes_are_refused_together() -> None:
    with pytest.raises(ConfigError) as caught:
        check_augment(Augment(crop=6, cutout=7), IMAGE)
    assert caught.value.faults == (
        "training.augment.crop must be less than the images' side of 6 pixels, got 6",
        "training.augment.cutout must be at most the images' side of 6 pixels, got 7",
    )


def test_samples_that_are_no_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^training.augment must be null .* of shape \(64,\)$"):
        check_augment(Augment(flip=True), SampleSpec((64,), 10))


def test_token_ids_are_refused() -> None:
    text = r"^training.augment must be null for token ids, got crop=0 flip=True cutout=0$"
    with pytest.raises(ConfigError, match=text):
        check_augment(Augment(flip=True), SampleSpec((1, 8, 8), 10, vocabulary=90))


# --- in local training ----------------------------------------------------------------------------

CHANGES = Augment(crop=2, flip=True, cutout=3)


def steps_of(augment: Augment | None, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and labels of each step of a training on the digits."""
    model = flatten(split_model("mlp", hidden=[]))
    seen: tuple[list[Tensor], list[Tensor]] = ([], [])
    model.module.register_forward_pre_hook(lambda module, args: seen[0].append(args[0].clone()))

    def note(output: Tensor, labels: Tensor) -> Tensor:
        seen[1].append(labels.clone())
        return output.sum() * 0

    x, y = digits(20)
    training = Training(epochs=2, batch_size=8, augment=augment)
    Trainer(model, training).run(LocalTask(model.read(), loss=note), x, y, LR, order(seed))
    return seen


def test_a_step_sees_changed_images_of_the_same_samples() -> None:
    plain, changed = steps_of(None), steps_of(CHANGES)
    assert all(torch.equal(*labels) for labels in zip(plain[1], changed[1], strict=True))
    draw = order().spawn(1)[0]
    for before, after in zip(plain[0], changed[0], strict=True):
        assert torch.equal(after, augmented(before, CHANGES, draw))
        assert not torch.equal(after, before)


def test_changes_are_drawn_anew_each_step() -> None:
    first, second = (torch.cat(steps_of(CHANGES)[0][i : i + 3]) for i in (0, 3))
    assert not torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)


def test_no_change_and_none_give_the_same_bits() -> None:
    for plain, idle in zip(steps_of(None)[0], steps_of(Augment())[0], strict=True):
        assert torch.equal(plain, idle)
