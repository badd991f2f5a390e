"""Records that move from one node's store to another's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from client_states import INITIAL, is_initial, state, value_of

from spatl_ray.errors import StateError
from spatl_ray.state.store import StateStore


def two(folder: Path) -> tuple[StateStore, StateStore]:
    """Of two nodes."""
    return StateStore(folder / "one", INITIAL), StateStore(folder / "other", INITIAL)


def test_a_record_reads_the_same_in_the_other_store(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    one.write(5, 3, state(30), -1)
    other.keep(5, one.record(5, 3))
    assert value_of(other.read(5, 3)) == 30
    assert StateStore(other.folder, INITIAL).record(5, 3) == one.record(5, 3)


def test_a_record_takes_the_place_of_the_older_one(tmp_path: Path) -> None:
    """The state that a repeated round reads stays."""
    one, other = two(tmp_path)
    last = -1
    for round_ in range(5):
        one.write(5, round_, state(round_), last)
        other.keep(5, one.record(5, round_))
        for known in {max(last, 0), round_}:
            assert value_of(other.read(5, known)) == known
        last = round_
    other.keep(5, one.record(5, 4))
    other.keep(5, one.record(5, 3))  # a call that is repeated
    assert [value_of(other.read(5, known)) for known in (3, 4)] == [3, 4]
    other.write(5, 6, state(6), 4)
    assert value_of(other.read(5, 4)) == 4


def test_a_record_that_comes_too_late_is_refused(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    one.write(5, 3, state(3), -1)
    late = one.record(5, 3)
    other.write(5, 4, state(4), -1)
    with pytest.raises(StateError, match="state of client 5 after round 3 comes too late"):
        other.keep(5, late)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda record: record[:-1], r"record of client 5 must have \d+ bytes"),
        (lambda record: record[:20], r"record of client 5 .* bytes"),
        (lambda record: b"", r"record of client 5 must have \d+ bytes"),
        (lambda record: b"x" + record[1:], "damaged or of another run"),
        (lambda record: record[:-1] + b"x", "does not match its checksum"),
        (lambda record: bytes(len(record)), "record of client 5 must have a header"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, damage: object, what: str) -> None:
    one, other = two(tmp_path)
    one.write(5, 3, state(3), -1)
    assert callable(damage)
    with pytest.raises(StateError, match=what):
        other.keep(5, damage(one.record(5, 3)))
    assert not other.folder.exists()


def test_what_is_not_there_cannot_move(tmp_path: Path) -> None:
    one, _ = two(tmp_path)
    with pytest.raises(StateError, match="the file with the state of client 5 is missing"):
        one.record(5, 3)
    one.write(5, 3, state(3), -1)
    with pytest.raises(StateError, match="state of client 5 after round 2 is not there"):
        one.record(5, 2)


def test_a_store_tells_which_states_it_lacks(tmp_path: Path) -> None:
    """After it has gone back; a copy of another node's fills the gap."""
    one, other = two(tmp_path)
    for store, clients in ((one, (0, 1)), (other, (1, 2))):
        for client in clients:
            store.write(client, 3, state(client), -1)
            store.write(client, 6, state(9), 3)
    last = np.array([3, 3, 3, -1])
    assert one.take_back(last) == [2]
    assert other.take_back(last) == [0]
    one.keep(2, other.record(2, 3))
    assert [value_of(one.read(client, 3)) for client in range(3)] == [0, 1, 2]
    assert one.take_back(last) == []
    with pytest.raises(StateError, match="after round 6 is not there"):
        one.read(1, 6)


def test_a_store_forgets(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    one.write(5, 3, state(3), -1)
    one.forget()
    other.forget()  # which has nothing
    assert not one.folder.exists()
    assert is_initial(one.read(5, -1))
    one.write(5, 0, state(7), -1)
    assert value_of(one.read(5, 0)) == 7
    with pytest.raises(StateError, match="after round 3 is not there"):
        one.read(5, 3)
