"""States of an older checkpoint, after later rounds have overwritten both slots."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from client_states import INITIAL, is_initial, state, value_of
from hypothesis import given, settings
from hypothesis import strategies as st

from spatl_ray.errors import StateError
from spatl_ray.state.store import CLIENTS_A_SHARD, StateStore, sync_states
from spatl_ray.state.undo import is_needed

CLIENTS = 3


def at(store: StateStore, last: list[int], written: dict[tuple[int, int], int]) -> None:
    """Every client reads the state of its round."""
    for client, round_ in enumerate(last):
        found = store.read(client, round_)
        if round_ < 0:
            assert is_initial(found)
        else:
            assert value_of(found) == written[client, round_]


rounds = st.lists(st.tuples(st.sets(st.integers(0, CLIENTS - 1)), st.booleans()), max_size=12)


@given(rounds, st.data())
@settings(deadline=None, max_examples=80)
def test_every_kept_checkpoint_can_be_restored(
    plan: list[tuple[set[int], bool]], data: st.DataObject
) -> None:
    """Clients train, checkpoints are taken; then one is restored, and the rounds after it come again."""
    last, kept, written = [-1] * CLIENTS, dict[int, list[int]](), dict[tuple[int, int], int]()
    with tempfile.TemporaryDirectory() as folder:
        store = StateStore(Path(folder), INITIAL)

        def train(round_: int, cohort: set[int]) -> None:
            for client in cohort:
                value = written.setdefault((client, round_), len(written))
                store.write(client, round_, state(value), last[client], tuple(kept))
                last[client] = round_

        for round_, (cohort, saved) in enumerate(plan):
            train(round_, cohort)
            if saved:
                kept[round_] = list(last)
        if not kept:
            return
        chosen = data.draw(st.sampled_from(sorted(kept)))
        torn = data.draw(st.booleans())
        if torn:  # the entry that a process was writing when it was killed
            for path in store.undo.files():
                path.write_bytes(path.read_bytes() + b"UNDO\0\0\0")
        fresh = StateStore(Path(folder), INITIAL)
        fresh.restore(np.array(kept[chosen]))
        at(fresh, kept[chosen], written)
        store, last = fresh, list(kept[chosen])
        kept = {known: lasts for known, lasts in kept.items() if known <= chosen}
        for round_, (cohort, _) in list(enumerate(plan))[chosen + 1 :]:
            train(round_, cohort)
        at(store, last, written)
        store.restore(np.array(kept[chosen]))
        at(store, kept[chosen], written)


def test_what_no_checkpoint_needs_is_not_kept(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INITIAL)
    last = -1
    for round_ in range(6):
        store.write(1, round_, state(round_), last, kept=(4,) if round_ == 5 else ())
        last = round_
    assert store.undo.files() == []
    assert not is_needed(3, 4, (4,))  # round 4's own is the client's last one there
    assert is_needed(3, 5, (4,))
    assert not is_needed(None, 5, (4,))
    assert not is_needed(3, -1, (4,))


def test_entries_go_with_their_checkpoints(tmp_path: Path) -> None:
    store, last = StateStore(tmp_path, INITIAL), -1
    for round_ in range(8):
        kept = tuple(c for c in (1, 4) if c < round_)
        store.write(1, round_, state(round_), last, kept)
        last = round_
    assert [path.name[:6] for path in store.undo.files()] == ["000001", "000004"]
    store.undo.forget(4)
    assert [path.name[:6] for path in store.undo.files()] == ["000004"]
    store.restore(np.array([-1, 4]))
    assert value_of(store.read(1, 4)) == 4
    store.undo.forget(5)
    with pytest.raises(StateError, match="client 1 after round 1 is lost"):
        store.restore(np.array([-1, 1]))


def test_records_moved_from_other_nodes_are_kept_too(tmp_path: Path) -> None:
    one, other = (StateStore(tmp_path / name, INITIAL) for name in ("one", "other"))
    last = -1
    for round_ in range(5):
        kept = (0,) if round_ else ()
        one.write(1, round_, state(round_), last, kept)
        other.keep(1, one.record(1, round_), kept)
        last = round_
    for store in (one, other):
        store.restore(np.array([-1, 0]))
        assert value_of(store.read(1, 0)) == 0


def test_a_damaged_slot_is_restored_from_what_was_kept(tmp_path: Path) -> None:
    """A process that was killed while it wrote over a record had kept that record first."""
    store = StateStore(tmp_path, INITIAL)
    store.write(1, 0, state(0), -1)
    store.write(1, 1, state(1), 0)
    store.write(1, 2, state(2), 1, kept=(0,))
    path, offset = store._place(1)
    data = bytearray(path.read_bytes())
    for place in (offset, offset + store._slot):
        data[place + 40] ^= 1
    path.write_bytes(data)
    fresh = StateStore(tmp_path, INITIAL)
    fresh.restore(np.array([-1, 0]))
    assert value_of(fresh.read(1, 0)) == 0


def test_clients_that_never_took_part_cost_nothing(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INITIAL)
    store.restore(np.full(10_000, -1))
    assert list(tmp_path.iterdir()) == []
    sync_states(tmp_path, np.arange(10_000))


@given(rounds, st.data())
@settings(deadline=None, max_examples=60)
def test_a_refused_restore_changes_nothing(
    plan: list[tuple[set[int], bool]], data: st.DataObject
) -> None:
    """One client's state is lost; those of the others, which would be taken back, stay as they are."""
    last, kept = [-1] * CLIENTS, tuple[int, ...]()
    with tempfile.TemporaryDirectory() as folder:
        store = StateStore(Path(folder), INITIAL)
        lasts = [list(last)]
        for round_, (cohort, saved) in enumerate(plan):
            for client in cohort:
                store.write(client, round_, state(round_), last[client], kept)
                last[client] = round_
            lasts.append(list(last))
            kept += (round_,) if saved else ()
        wanted = data.draw(st.sampled_from(lasts))
        lost = data.draw(st.integers(0, CLIENTS - 1))
        wanted = [len(plan) + 1 if client == lost else at for client, at in enumerate(wanted)]
        before = {path: path.read_bytes() for path in Path(folder).rglob("*.bin")}
        with pytest.raises(StateError, match=r"the state of client \d after round \d+ is lost"):
            store.restore(np.array(wanted))
        assert {path: path.read_bytes() for path in Path(folder).rglob("*.bin")} == before


def test_a_damaged_second_file_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    """Clients of two shards; in the second one, which is looked at later, a record is damaged."""
    store, far = StateStore(tmp_path, INITIAL), CLIENTS_A_SHARD + 3
    for client in (1, far):
        store.write(client, 0, state(0), -1)
        store.write(client, 1, state(1), 0)
    path, offset = store._place(far)
    with path.open("r+b") as file:
        file.seek(offset + 40)
        file.write(b"\xff")
    last = np.full(far + 1, -1)
    last[[1, far]] = 0
    with pytest.raises(StateError, match=f"client {far} after round 0 is lost"):
        StateStore(tmp_path, INITIAL).restore(last)
    fresh = StateStore(tmp_path, INITIAL)
    assert [value_of(fresh.read(1, round_)) for round_ in (0, 1)] == [0, 1]
    assert value_of(fresh.read(far, 1)) == 1


def test_a_file_without_its_end_cannot_be_restored(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INITIAL)
    store.write(1, 0, state(0), -1)
    path, offset = store._place(1)
    path.write_bytes(path.read_bytes()[: offset + 20])
    with pytest.raises(StateError, match=r"must have \d+ bytes, got \d+: it is truncated"):
        StateStore(tmp_path, INITIAL).restore(np.array([-1, 0]))
