"""Damaged, truncated, foreign and half-written state files show, or do no harm."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from client_states import INITIAL, state, value_of

from spatl_ray.errors import StateError
from spatl_ray.state.store import CLIENTS_A_SHARD, StateStore
from spatl_ray.update import ClientState


def record_of(store: StateStore, client: int) -> tuple[Path, bytes, int, int]:
    """The file, its bytes, and where the client's two slots lie in it."""
    (path,) = store.folder.iterdir()
    data = path.read_bytes()
    slot = len(data) // CLIENTS_A_SHARD // 2
    return path, data, 2 * slot * client, slot


@pytest.mark.parametrize("slot", [0, 1])
def test_any_damaged_byte_of_a_record_shows(tmp_path: Path, slot: int) -> None:
    store = StateStore(tmp_path, INITIAL)
    for round_ in (0, 1):
        store.write(2, round_, state(round_), round_ - 1)
    path, data, offset, size = record_of(store, 2)
    assert size == 32 + sum(array.nbytes for array in INITIAL.values())
    for position in range(offset + slot * size, offset + (slot + 1) * size):
        damaged = bytearray(data[: offset + 2 * size])
        damaged[position] ^= 0x10
        with path.open("r+b") as file:
            file.write(damaged)
        with pytest.raises(StateError, match=r"shard-000000\.bin: the record of client 2 "):
            store.read(2, slot)


def test_a_damaged_record_hurts_no_other_client(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INITIAL)
    for client in (1, 2, 3):
        store.write(client, 0, state(client), -1)
    path, data, offset, size = record_of(store, 2)
    path.write_bytes(data[:offset] + b"\xff" * 2 * size + data[offset + 2 * size :])
    assert [value_of(store.read(c, 0)) for c in (1, 3)] == [1, 3]
    with pytest.raises(StateError, match="client 2"):
        store.write(2, 1, state(5), 0)


@pytest.mark.parametrize("missing", [1, 50, 10_000])
def test_a_truncated_file_shows_for_every_client(tmp_path: Path, missing: int) -> None:
    store = StateStore(tmp_path, INITIAL)
    store.write(CLIENTS_A_SHARD - 1, 0, state(1), -1)
    (path,) = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - missing)
    for client in (0, CLIENTS_A_SHARD - 1):
        with pytest.raises(StateError, match=rf"shard-000000\.bin: the file with client {client} "):
            store.read(client, 0)
        with pytest.raises(StateError, match="truncated"):
            store.write(client, 1, state(2), 0)


@pytest.mark.parametrize(
    "other",
    [
        {"x": np.zeros(5, dtype=np.float32)},
        {"x": np.zeros(4, dtype=np.float64)},
        {"y": np.zeros(4, dtype=np.float32)},
        {"x": np.zeros((2, 2), dtype=np.float32)},
        {"x": np.zeros(4, dtype=np.int32)},
    ],
)
def test_a_file_of_another_run_is_refused(tmp_path: Path, other: ClientState) -> None:
    first = {"x": np.ones(4, dtype=np.float32)}
    StateStore(tmp_path, first).write(3, 0, first, -1)
    store = StateStore(tmp_path, other)
    with pytest.raises(StateError, match=r"client 3 .*of another run"):
        store.read(3, 0)
    with pytest.raises(StateError, match=r"client 3 .*of another run"):
        store.write(3, 1, other, 0)


def test_the_system_may_write_less_than_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:7], offset))
    store = StateStore(tmp_path, INITIAL)
    for round_ in (0, 1):
        store.write(0, round_, state(round_), round_ - 1)
    assert [value_of(store.read(0, t)) for t in (0, 1)] == [0, 1]


@pytest.mark.parametrize("room", [0, 1, 40, 63])
def test_a_write_that_breaks_off_leaves_the_state_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """The disk is full after `room` bytes: the system writes so many, then refuses."""
    store = StateStore(tmp_path, INITIAL)
    for round_ in (0, 1, 2):
        store.write(0, round_, state(round_), round_ - 1)
    real, left = os.pwrite, [room]

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[: left[0]], offset)
        left[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StateError, match=r"cannot write .*shard-000000.bin: No space left"):
            store.write(0, 3, state(3), 2)
    assert value_of(store.read(0, 2)) == 2
    store.write(0, 3, state(3), 2)
    assert value_of(store.read(0, 3)) == 3
    assert value_of(store.read(0, 2)) == 2
