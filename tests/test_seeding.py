"""A key decides what is drawn; every component of it counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.errors import ConfigError
from spatl_ray.seeding import ANY, generator, torch_seeded

words = st.integers(0, ANY)
keys = st.tuples(words, st.text(max_size=8), words, words)


def drawn(key: tuple[int, str, int, int]) -> list[int]:
    return generator(*key).integers(0, 2**63, 4).tolist()


def drawn_by_torch(key: tuple[int, str, int, int]) -> list[float]:
    with torch_seeded(*key):
        return torch.rand(4, dtype=torch.float64).tolist()


@given(keys)
def test_the_same_key_gives_the_same_numbers(key: tuple[int, str, int, int]) -> None:
    assert drawn(key) == drawn(key)
    assert drawn_by_torch(key) == drawn_by_torch(key)


@given(keys, keys)
def test_another_key_gives_other_numbers(
    a: tuple[int, str, int, int], b: tuple[int, str, int, int]
) -> None:
    for position in range(4):
        if a[position] != b[position]:
            changed = (*a[:position], b[position], *a[position + 1 :])
            assert drawn(changed) != drawn(a)
            assert drawn_by_torch(changed) != drawn_by_torch(a)


def test_components_do_not_stand_for_each_other() -> None:
    keys = [(1, "a", 2, 3), (2, "a", 1, 3), (1, "a", 3, 2), (3, "a", 2, 1), (1, "b", 2, 3)]
    keys += [(0, "a", 0, 0), (0, "a", 0, ANY), (0, "a", ANY, 0), (0, "", 0, 0)]
    assert len({tuple(drawn(key)) for key in keys}) == len(keys)


def test_golden_numbers() -> None:
    # NumPy's own SeedSequence over (seed, CRC-32 of the stream, round, client), by hand.
    sequence = np.random.SeedSequence([7, 0x352441C2, 1, 2])  # 0x352441C2 = CRC-32 of "abc"
    expected = np.random.Generator(np.random.PCG64(sequence)).random(3)
    assert generator(7, "abc", 1, 2).random(3).tolist() == expected.tolist()


@pytest.mark.parametrize("value", [-1, ANY + 1, 2**64])
@pytest.mark.parametrize("position", [0, 2, 3])
def test_numbers_outside_of_a_word_are_refused(value: int, position: int) -> None:
    key = [0, "batches", 0, 0]
    key[position] = value
    name = ["seed", "", "round", "client"][position]
    with pytest.raises(ConfigError, match=rf"{name} must be in \[0, 2\*\*32\), got {value}"):
        generator(*key)
    with pytest.raises(ConfigError, match=name), torch_seeded(*key):
        pass


def test_torchs_global_generator_goes_on_as_if_nothing_had_been() -> None:
    torch.manual_seed(5)
    expected = torch.rand(6).tolist()
    torch.manual_seed(5)
    first = torch.rand(3).tolist()
    with torch_seeded(1, "model"):
        torch.rand(10)
    assert first + torch.rand(3).tolist() == expected


def test_it_is_restored_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), torch_seeded(1, "model"):
        torch.rand(10).view(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_contexts_nest() -> None:
    with torch_seeded(1, "outer"):
        torch.rand(2)
        expected = torch.rand(2).tolist()
    with torch_seeded(1, "outer"):
        torch.rand(2)
        with torch_seeded(1, "inner"):
            torch.rand(7)
        assert torch.rand(2).tolist() == expected
