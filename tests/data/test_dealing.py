"""Redraws: until each client holds enough, or until it is clear that none will do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from partitions import balanced, deal

from spatl_ray import config
from spatl_ray.data.dealing import Cut, Redraws, cut
from spatl_ray.errors import DataError

CLIENTS = 1000


def cuts(short: Iterable[int], clients: int = CLIENTS, void: bool = False) -> Iterator[Cut]:
    """Draws that leave so many clients without a sample; the others hold one."""
    for number in short:
        held = (np.arange(clients) >= number).astype(np.int64)
        yield Cut(None if void else held, held)


def redraws(clients: int = CLIENTS) -> Redraws:
    return Redraws("some", 0.5, clients, 1, clients)


def test_draws_that_are_far_from_enough_end_early() -> None:
    draws = cuts([13] * 2000)
    rule = r"some: none of 10 redraws .* samples, and all left at least 13 clients short: raise"
    with pytest.raises(DataError, match=rule):
        redraws().until_enough(draws.__next__)
    assert len(list(draws)) == 2000 - 11


@pytest.mark.parametrize(
    ("short", "clients"),
    [([12] * 1000, CLIENTS), ([900] * 10 + [12] + [900] * 989, CLIENTS), ([90] * 1000, 100)],
    ids=["few short", "few short once", "few clients"],
)
def test_draws_that_may_succeed_go_on(short: list[int], clients: int) -> None:
    found = redraws(clients).until_enough(cuts([*short, 0], clients).__next__)
    assert found.sum() == clients
    with pytest.raises(DataError, match=r"none of 1000 redraws .* samples: raise beta"):
        redraws(clients).until_enough(cuts([*short, 1], clients).__next__)


def test_a_void_draw_is_none_though_all_clients_hold_enough() -> None:
    """It counts as far as it got: here it is near enough to go on."""
    with pytest.raises(DataError, match="none of 1000 redraws"):
        redraws().until_enough(cuts([0] * 1001, void=True).__next__)
    with pytest.raises(DataError, match=r"none of 10 redraws .* at least 1000 clients short"):
        redraws().until_enough(cuts([CLIENTS] * 1001, void=True).__next__)


@pytest.mark.parametrize(
    "spec",
    [
        config.Dirichlet(beta=0.2, min_size=1),
        config.Dirichlet(beta=1e-9, min_size=1),
        config.Mixed(beta=0.3),
        config.Quantity(beta=0.5, min_size=1),
        config.Quantity(beta=1e308, min_size=1),
    ],
)
def test_partitions_of_many_clients_are_refused_early(spec: config.Partition) -> None:
    """Also where all draws are void."""
    with pytest.raises(DataError, match=rf"{spec.name}: none of 10 redraws .* clients short"):
        deal(balanced(10, 2000), spec, 2000)


def test_redraws_leave_the_sequence_of_draws_as_it_is() -> None:
    """Dirichlet draws alone, then the permutation; about one draw in ten gives each a sample."""
    draws = []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        sizes, number = np.zeros(1, np.int64), 0
        while sizes.min() < 1:
            found = cut(1500, generator.dirichlet(np.full(150, 1.5)))
            assert found is not None
            sizes, number = found, number + 1
        partition = deal(np.zeros(1500, np.int64), config.Quantity(beta=1.5, min_size=1), 150, seed)
        draws.append(number)
        assert np.array_equal(partition.sizes, sizes)
        assert np.array_equal(partition.indices, generator.permutation(1500))
    assert max(draws) > 1
