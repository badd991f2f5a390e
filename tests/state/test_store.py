"""Client states survive retries and replays, and clients do not meet in a shard."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from client_states import INITIAL, is_initial, state, value_of
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.errors import StateError
from spatl_ray.state.store import CLIENTS_A_SHARD, StateStore
from spatl_ray.update import ClientState


@contextmanager
def fresh() -> Iterator[StateStore]:
    """A store in a folder of its own, for one hypothesis example."""
    with tempfile.TemporaryDirectory() as folder:
        yield StateStore(Path(folder) / "states", INITIAL)


# --- what two slots promise -----------------------------------------------------------------------


def test_a_client_that_was_never_written_has_the_initial_state(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INITIAL)
    assert is_initial(store.read(3, -1))
    store.write(4, 0, state(1), -1)
    assert is_initial(store.read(3, -1))
    assert value_of(store.read(4, 0)) == 1


attempts = st.lists(st.tuples(st.integers(0, 3), st.lists(st.booleans(), max_size=3)), max_size=20)


@given(attempts)
@settings(deadline=None, max_examples=60)
def test_every_attempt_reads_what_was_committed_last(plan: list[tuple[int, list[bool]]]) -> None:
    """In each round one client makes attempts; each is written, and is committed or not."""
    committed = dict.fromkeys(range(4), (-1, -1.0))
    serial = 0
    with fresh() as store:
        for round_, (client, outcomes) in enumerate(plan):
            last, value = committed[client]
            for counted in outcomes:
                before = store.read(client, last)
                assert is_initial(before) if last < 0 else value_of(before) == value
                serial += 1
                store.write(client, round_, state(serial), last)
                if counted:
                    committed[client] = (round_, serial)
                    break
        for client, (last, value) in committed.items():
            found = store.read(client, last)
            assert is_initial(found) if last < 0 else value_of(found) == value


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_replay_reads_the_right_state_or_says_that_it_is_gone(data: st.DataObject) -> None:
    """A run starts again from an earlier round, over and over, and may then go otherwise."""
    commits: list[tuple[int, float]] = []
    serial = 0
    with fresh() as store:
        for _ in range(data.draw(st.integers(1, 4), "starts")):
            start = data.draw(st.integers(0, 6), "from round")
            commits = [(t, value) for t, value in commits if t < start]
            for round_ in data.draw(st.sets(st.integers(start, 8)).map(sorted), "rounds"):
                last, value = commits[-1] if commits else (-1, 0.0)
                serial += 1
                try:
                    found = store.read(0, last)
                    store.write(0, round_, state(serial), last)
                except StateError:
                    continue
                assert is_initial(found) if last < 0 else value_of(found) == value
                commits.append((round_, serial))


def test_the_last_two_states_are_there_and_older_ones_are_gone(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INITIAL)
    for last, round_ in ((-1, 1), (1, 4), (4, 5)):
        store.write(2, round_, state(round_), last)
    assert [value_of(store.read(2, t)) for t in (4, 5)] == [4, 5]
    for gone in (1, 3):
        with pytest.raises(
            StateError, match=rf"0\.bin: .* client 2 after round {gone} is not there"
        ):
            store.read(2, gone)
        with pytest.raises(StateError, match=f"client 2 after round {gone} is not there"):
            store.write(2, 6, state(6), gone)


@pytest.mark.parametrize(("round_", "last"), [(0, -1), (3, -1), (3, 0), (4, 3)])
def test_a_call_that_comes_too_late_overwrites_nothing(
    tmp_path: Path, round_: int, last: int
) -> None:
    store = StateStore(tmp_path, INITIAL)
    for before, written in ((-1, 0), (0, 3), (3, 5)):
        store.write(7, written, state(written), before)
    with pytest.raises(
        StateError, match=rf"0\.bin: .* client 7 after round {round_} comes too late"
    ):
        store.write(7, round_, state(99), last)
    assert [value_of(store.read(7, t)) for t in (3, 5)] == [3, 5]


def test_a_state_whose_file_is_missing_is_not_the_initial_one(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INITIAL)
    store.write(0, 0, state(1), -1)
    next(tmp_path.iterdir()).unlink()
    with pytest.raises(StateError, match=r"shard-000000\.bin: .* client 0 is missing"):
        store.read(0, 0)


# --- values ---------------------------------------------------------------------------------------


def test_bits_come_back(tmp_path: Path) -> None:
    store = StateStore(tmp_path, {"x": np.zeros(4, dtype=np.float32)})
    odd = np.array([np.nan, -0.0, np.inf, 1e-45], dtype=np.float32)
    store.write(0, 0, {"x": odd}, -1)
    assert store.read(0, 0)["x"].tobytes() == odd.tobytes()


def test_strided_arrays_are_written_in_their_order(tmp_path: Path) -> None:
    store = StateStore(tmp_path, {"x": np.zeros((2, 3))})
    x = np.arange(6.0).reshape(3, 2).T
    store.write(0, 0, {"x": x}, -1)
    assert np.array_equal(store.read(0, 0)["x"], x)


@pytest.mark.parametrize("written", [False, True])
def test_states_are_read_only(tmp_path: Path, written: bool) -> None:
    initial = {"x": np.zeros(2)}
    store = StateStore(tmp_path, initial)
    if written:
        store.write(0, 0, {"x": np.ones(2)}, -1)
    with pytest.raises(ValueError, match="read-only"):
        store.read(0, 0 if written else -1)["x"] += 1
    initial["x"] += 5
    assert not store.read(1, -1)["x"].any()


def test_an_empty_state_needs_no_file(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "states", {})
    store.write(0, 0, {}, -1)
    assert store.read(0, 0) == {}
    assert not (tmp_path / "states").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {k: v for k, v in INITIAL.items() if k != "bits"},
        {**INITIAL, "more": np.zeros(1)},
        {**INITIAL, "variate": np.zeros(6)},
        {**INITIAL, "variate": np.zeros((5, 1))},
        {**INITIAL, "variate": np.zeros(5, dtype=np.float32)},
    ],
)
def test_a_state_of_another_form_is_refused(tmp_path: Path, wrong: ClientState) -> None:
    store = StateStore(tmp_path, INITIAL)
    with pytest.raises(StateError, match=r"the state of client 9 must be \{'bits': .* got \{"):
        store.write(9, 0, wrong, -1)
    assert not list(tmp_path.iterdir())


# --- shards ---------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.integers(0, 5 * CLIENTS_A_SHARD), st.integers(1, 99), min_size=1, max_size=8)
)
@settings(deadline=None, max_examples=30)
def test_clients_do_not_share_slots(values: dict[int, int]) -> None:
    with fresh() as store:
        for client, value in values.items():
            store.write(client, 0, state(value), -1)
            store.write(client, 1, state(100 + value), 0)
        for client, value in values.items():
            assert value_of(store.read(client, 0)) == value
            assert value_of(store.read(client, 1)) == 100 + value
        shards = {client // CLIENTS_A_SHARD for client in values}
        assert {p.name for p in store.folder.iterdir()} == {f"shard-{s:06d}.bin" for s in shards}


def test_clients_that_were_never_written_cost_nothing(tmp_path: Path) -> None:
    large = {"x": np.zeros(100_000, dtype=np.float32)}
    store = StateStore(tmp_path, large)
    store.write(CLIENTS_A_SHARD - 1, 0, large, -1)
    (path,) = tmp_path.iterdir()
    facts = path.stat()
    assert facts.st_size > 800_000 * CLIENTS_A_SHARD
    assert 400_000 <= facts.st_blocks * 512 <= 450_000


def write_many(folder: Path, clients: range, rounds: int) -> None:
    store = StateStore(folder, INITIAL)
    for round_ in range(rounds):
        for client in clients:
            if round_:
                assert value_of(store.read(client, round_ - 1)) == client + round_ - 1
            store.write(client, round_, state(client + round_), round_ - 1)


def test_two_processes_write_to_one_shard(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        parts = [range(part, 60, 2) for part in (0, 1)]
        for done in [pool.submit(write_many, tmp_path, part, 20) for part in parts]:
            done.result(timeout=60)
    store = StateStore(tmp_path, INITIAL)
    assert [value_of(store.read(c, 19)) for c in range(60)] == [c + 19 for c in range(60)]
