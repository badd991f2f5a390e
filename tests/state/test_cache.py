"""The cache changes no state, is bounded, and knows of which round a record is."""

from __future__ import annotations

from pathlib import Path

import pytest
from client_states import INITIAL, state, value_of
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.errors import StateError
from spatl_ray.state.cache import Cache
from spatl_ray.state.store import StateStore

PLENTY = 2**20

calls = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 9)), max_size=40)


@given(calls, st.integers(0, 20))
def test_it_holds_the_last_used_records_and_no_more(
    puts: list[tuple[int, int, int]], most: int
) -> None:
    cache, used = Cache(most), list[tuple[int, int, bytes]]()
    for client, round_, size in puts:
        record = bytes([round_]) * size
        cache.put(client, round_, record)
        used = [each for each in used if each[0] != client]
        used += [(client, round_, record)] if size <= most else []
        while sum(len(record) for *_, record in used) > most:
            used.pop(0)
        for client_, round__, record in list(used):
            assert cache.get(client_, round__) == record
        assert cache.held == sum(len(record) for *_, record in used) <= most
        assert cache.get(client, round_ + 1) is None
        assert sum(cache.get(c, r) is not None for c in range(5) for r in range(4)) == len(used)
        # Asking made the last asked one the last used one.
        used = [each for c in range(5) for r in range(4) for each in used if each[:2] == (c, r)]


def test_a_cached_state_needs_no_file(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INITIAL, PLENTY)
    store.write(0, 0, state(7), -1)
    for path in tmp_path.iterdir():
        path.unlink()
    assert value_of(store.read(0, 0)) == 7
    with pytest.raises(StateError, match="is missing"):
        store.read(0, 1)
    with pytest.raises(ValueError, match="read-only"):
        store.read(0, 0)["variate"] += 1


def test_another_workers_state_is_read_from_its_file(tmp_path: Path) -> None:
    one, other = (StateStore(tmp_path, INITIAL, PLENTY) for _ in range(2))
    one.write(0, 0, state(1), -1)
    assert value_of(other.read(0, 0)) == 1
    other.write(0, 1, state(2), 0)
    assert value_of(one.read(0, 1)) == 2
    assert value_of(one.read(0, 0)) == 1
    one.write(0, 2, state(3), 1)
    assert value_of(other.read(0, 2)) == 3


def test_without_room_nothing_is_held(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INITIAL)
    store.write(0, 0, state(7), -1)
    store.read(0, 0)
    assert store.cache.held == 0
