"""Who can take part: frequencies, independence, periods; the same bits whoever is asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray import config
from spatl_ray.federation.availability import ever_there, make_availability, newcomers

seeds = st.integers(0, 2**32 - 1)
kinds = st.one_of(
    st.just(config.Always()),
    st.floats(0.01, 1).map(lambda p: config.Random(p=p)),
    st.builds(config.Periodic, period=st.integers(2, 40), share=st.floats(0.01, 1)),
    st.builds(config.Newcomers, share=st.floats(0.01, 0.99)),
)


def table(spec: config.Availability, clients: int, rounds: int, seed: int = 0) -> np.ndarray:
    """A row a round, a column a client."""
    available = make_availability(spec, clients, seed)
    return np.array([available(round_, np.arange(clients)) for round_ in range(rounds)])


@given(spec=kinds, seed=seeds, round_=st.integers(0, 10**6), data=st.data())
def test_the_same_bits_whoever_is_asked(
    spec: config.Availability, seed: int, round_: int, data: st.DataObject
) -> None:
    every = make_availability(spec, 60, seed)(round_, np.arange(60))
    asked = np.array(data.draw(st.lists(st.integers(0, 59), max_size=20)), np.int64)
    bits = make_availability(spec, 60, seed)(round_, asked)
    assert bits.dtype == np.bool_
    assert bits.tolist() == every[asked].tolist()


def test_always() -> None:
    assert table(config.Always(), 5, 3).all()


def test_a_certain_chance_is_always() -> None:
    assert table(config.Random(p=1.0), 1000, 20).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_random_has_the_frequency_p_in_each_round_and_of_each_client(p: float) -> None:
    """Means of 500 bits lie within 6 standard deviations of p."""
    bits = table(config.Random(p=p), 500, 500)
    deviation = np.sqrt(p * (1 - p) / 500)
    assert np.abs(bits.mean(axis=0) - p).max() < 6 * deviation
    assert np.abs(bits.mean(axis=1) - p).max() < 6 * deviation
    assert abs(bits.mean() - p) < 6 * deviation / np.sqrt(500)


@pytest.mark.parametrize("lag", [1, 2, 24])
def test_random_rounds_and_clients_are_uncorrelated(lag: int) -> None:
    """Correlations of 250,000 pairs have the standard deviation 1 / 500."""
    bits = table(config.Random(p=0.3), 500, 500 + lag).astype(np.float64)
    rounds = np.corrcoef(bits[:-lag].ravel(), bits[lag:].ravel())[0, 1]
    clients = np.corrcoef(bits[:, :-lag].ravel(), bits[:, lag:].ravel())[0, 1]
    both = np.corrcoef(bits[:-lag, :-lag].ravel(), bits[lag:, lag:].ravel())[0, 1]
    assert max(abs(rounds), abs(clients), abs(both)) < 6 / 480


@pytest.mark.parametrize(
    "spec",
    [config.Random(), config.Periodic(), config.Newcomers(share=0.5)],
    ids=lambda spec: spec.name,
)
def test_another_seed_gives_other_bits(spec: config.Availability) -> None:
    agree = (table(spec, 500, 20, 1) == table(spec, 500, 20, 2)).mean()
    assert 0.4 < agree < 0.6


@given(period=st.integers(2, 30), share=st.floats(0.01, 1), seed=seeds, start=st.integers(0, 10**6))
def test_periodic_clients_are_there_once_a_period(
    period: int, share: float, seed: int, start: int
) -> None:
    """In any `period` rounds for share * period of them, in one piece, and so in the next ones."""
    available = make_availability(config.Periodic(period=period, share=share), 20, seed)
    rounds = range(start, start + 2 * period)
    bits = np.array([available(round_, np.arange(20)) for round_ in rounds])
    assert (bits[:period] == bits[period:]).all()
    assert (bits[:period].sum(axis=0) == max(1, int(share * period + 0.5))).all()
    arrivals = ~bits[:period] & bits[1 : period + 1]
    assert arrivals.sum(axis=0).max() <= 1


def test_periodic_clients_start_anywhere() -> None:
    """6,000 phases over 24 rounds: 250 each, with a standard deviation below 16."""
    arrived = table(config.Periodic(period=24, share=1 / 24), 6000, 24).sum(axis=1)
    assert arrived.sum() == 6000
    assert np.abs(arrived - 250).max() < 6 * 16


@pytest.mark.parametrize(
    ("share", "clients", "count"), [(0.2, 20, 4), (0.25, 10, 3), (0.04, 10, 0)]
)
def test_newcomers_are_never_there_and_all_others_always(
    share: float, clients: int, count: int
) -> None:
    spec = config.Newcomers(share=share)
    bits, new = table(spec, clients, 50), newcomers(spec, clients, 0)
    assert new.sum() == count
    assert (bits == ~new).all()
    there = ever_there(make_availability(spec, clients, 0), clients, rounds=50)
    assert (there == ~new).all()
    assert not newcomers(config.Random(), clients, 0).any()
