"""Client states in sharded fixed-slot files: cheap for many clients, safe for retries.

Each client has two slots: the new state goes beside the one that it follows, so that a round that is
repeated still reads the state from before it. Who reads names the round of the state that was
committed; what was written but never committed is never read. A client that was never written costs
nothing (the files are sparse, and have their full length from the start, so that a truncated one
shows). Workers write different clients, so that no lock is needed.

    shard file = [client 0: slot 0, slot 1][client 1: slot 0, slot 1]...
    slot       = header, arrays
    header     = magic (12 bytes), schema (u32), round (i64), CRC-32 of the arrays (u32),
                 CRC-32 of the header up to here (u32)
"""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from spatl_ray.arrays import Integers
from spatl_ray.errors import StateError
from spatl_ray.places import sync
from spatl_ray.state.cache import Cache
from spatl_ray.state.disk import check_length, opened, reported, write_all
from spatl_ray.state.form import Form, frozen
from spatl_ray.state.slots import older_slot, slot_beside, slot_of
from spatl_ray.state.undo import UndoLog, is_needed, undo_folder
from spatl_ray.update import ClientState

CLIENTS_A_SHARD = 1024
_HEADER = struct.Struct("<12sIqII")
_MAGIC = b"SPATLSTATE02"
_CHECKED = slice(0, _HEADER.size - 4)

Change = tuple[int, bytes]
"""Bytes to write at a place of a shard file."""


class StateStore:
    """Reads and writes client states of one shape.

    Args:
        folder: of the shard files; on storage that all workers of the run share.
        initial: the state of a client that was never written; it fixes names, shapes and dtypes.
        cached: bytes of records that this process keeps in memory, those that it used last.
        values: type to which floating-point arrays are rounded, or None.
    """

    def __init__(
        self, folder: Path, initial: ClientState, cached: int = 0, values: str | None = None
    ) -> None:
        self.folder = folder
        self.cache = Cache(cached)
        self.initial = {name: frozen(initial[name]) for name in sorted(initial)}
        self._form = Form(self.initial, values)
        self._schema = zlib.crc32(str(self._form).encode())
        self._slot = _HEADER.size + self._form.size
        self._length = 2 * self._slot * CLIENTS_A_SHARD
        self.undo = UndoLog(undo_folder(folder))
        self._preserved: dict[int, int] = {}

    def read(self, client: int, written: int) -> ClientState:
        """The client's state as it was written in round `written`; the initial one for -1.

        The arrays are read-only.

        Raises:
            StateError: there is no such record (it was lost or overwritten), or it is damaged or of
                another schema.
        """
        if not self.initial or written < 0:
            return dict(self.initial)
        return self._arrays(self.record(client, written))

    def write(
        self,
        client: int,
        round_: int,
        state: Mapping[str, np.ndarray],
        last: int,
        kept: Sequence[int] = (),
    ) -> None:
        """Write the client's state after `round_`, beside the one of round `last`, which stays.

        So a round that is repeated reads what it read the first time.

        Args:
            client: which one.
            round_: the round that ends with this state.
            state: arrays with the names, shapes and dtypes of the initial state.
            last: the round of the state that this one follows, -1 for the initial one.
            kept: rounds of checkpoints that can be restored: what they need is not lost.

        Raises:
            StateError: the arrays do not fit, or the state of round `last` is not there: a call that
                comes too late must not overwrite what came after it.
        """
        if not self.initial:
            return
        record = self._pack(client, round_, state)
        path, offset = self._place(client)
        with opened(path, self._length) as descriptor:
            rounds = self._rounds(descriptor, offset, path, client)
            slot = slot_beside(rounds, round_, last, path, client)
            place = offset + slot * self._slot
            if is_needed(rounds[slot], last, kept) and rounds[slot] != self._preserved.get(client):
                self._keep_old(descriptor, place, client, kept)
            self._put(descriptor, record, place)
        self.cache.put(client, round_, record)

    def preserve(self, last: Mapping[int, int], kept: Sequence[int]) -> None:
        """Before clients train: have the disk hold what the newest checkpoint needs of what they overwrite.

        If the machine stops, it may have new states without what was kept of old ones, unless that was
        written through: here, once for all of them.

        Args:
            last: the clients, each with the round of the state that its next one follows.
            kept: rounds of checkpoints that can be restored.
        """
        saved = [self._preserve(client, written, kept) for client, written in last.items()]
        if True in saved:
            self.undo.settle()

    def _preserve(self, client: int, last: int, kept: Sequence[int]) -> bool:
        """Whether something of one client had to be kept."""
        path, offset = self._place(client)
        if not self.initial or not kept or last < 0 or not path.exists():
            return False
        with opened(path, self._length) as descriptor:
            try:
                rounds = self._rounds(descriptor, offset, path, client)
                slot = slot_beside(rounds, last + 1, last, path, client)
            except StateError:  # who reads or writes it says so
                return False
            old = rounds[slot]
            if not is_needed(old, last, [max(kept)]) or old in (None, self._preserved.get(client)):
                return False
            self._keep_old(descriptor, offset + slot * self._slot, client, kept)
            self._preserved[client] = old
        return True

    def record(self, client: int, written: int) -> bytes:
        """The client's record of round `written`, for the store of another node.

        Raises:
            StateError: as for `read`.
        """
        known = self.cache.get(client, written)
        if known is not None:
            return known
        path, offset = self._place(client)
        if not path.exists():
            raise StateError(f"{path}: the file with the state of client {client} is missing")
        with reported("read", path), path.open("rb") as file:
            rounds = self._rounds(file.fileno(), offset, path, client)
            slot = slot_of(rounds, written, path, client)
            record = os.pread(file.fileno(), self._slot, offset + slot * self._slot)
        _check_arrays(record, path, client)
        self.cache.put(client, written, record)
        return record

    def keep(self, client: int, record: bytes, kept: Sequence[int] = ()) -> None:
        """Hold a record of another node's store, instead of the older of the two that are here.

        One that is here already is left alone.

        Raises:
            StateError: the record is damaged or of another run, or older than those that are here.
        """
        path, offset = self._place(client)
        if len(record) != self._slot:
            raise StateError(
                f"a record of client {client} must have {self._slot} bytes, got {len(record)}"
            )
        round_ = self._round(record[: _HEADER.size], path, client)
        if round_ is None:
            raise StateError(f"a record of client {client} must have a header, got none")
        _check_arrays(record, path, client)
        with opened(path, self._length) as descriptor:
            rounds = self._rounds(descriptor, offset, path, client)
            if round_ in rounds:
                return
            slot = older_slot(rounds, round_, path, client)
            place, other = offset + slot * self._slot, rounds[1 - slot]
            if other is not None and is_needed(rounds[slot], other, kept):
                self._keep_old(descriptor, place, client, kept)
            self._put(descriptor, record, place)
        self.cache.put(client, round_, record)

    def _keep_old(self, descriptor: int, place: int, client: int, kept: Sequence[int]) -> None:
        """Keep a slot's record before it is overwritten.

        A process that was killed while it wrote over one had kept it: what it left is no record.
        """
        record = os.pread(descriptor, self._slot, place)
        if self._whole(record, client) is not None:
            self.undo.append(client, record, kept)

    def restore(self, last: Integers) -> None:
        """Go back to a checkpoint: each client has the state of the round that is given, and none after it.

        Args:
            last: the round of each client's state, -1 for the initial one, shape (clients,).

        Raises:
            StateError: a state is neither in its slots nor among what was kept of them; then nothing
                has changed.
        """
        changes, missing = self._changes(last)
        for client in missing:
            path, _ = self._place(client)
            raise StateError(
                f"{path}: the state of client {client} after round {last[client]} is lost: neither its "
                f"slots nor {self.undo.folder} hold it"
            )
        self._change(changes)

    def take_back(self, last: Integers) -> list[int]:
        """Go back to a checkpoint as `restore` does; returns the clients whose state is not here.

        Args:
            last: the round of each client's state, -1 for the initial one, shape (clients,).
        """
        changes, missing = self._changes(last)
        self._change(changes)
        return missing

    def _change(self, changes: Mapping[int, Sequence[Change]]) -> None:
        """Write records and blanks to the files of some first clients."""
        for first, own in changes.items():
            if own:
                with opened(self._place(first)[0], self._length) as descriptor:
                    for place, record in own:
                        self._put(descriptor, record, place)

    def _changes(self, last: Integers) -> tuple[dict[int, list[Change]], list[int]]:
        """What going back writes, by each file's first client; and the clients whose state is not here.

        All files are looked at before any is changed: what is refused stays as it was.
        """
        changes: dict[int, list[Change]] = {}
        missing: list[int] = []
        if not self.initial:
            return changes, missing
        self.cache = Cache(self.cache.most)
        self._preserved.clear()
        undone: dict[int, bytes] = {}
        for client, record in self.undo.entries():
            is_here = 0 <= client < len(last) and len(record) == self._slot
            if is_here and self._whole(record, client) == last[client]:
                undone.setdefault(client, record)
        for first in range(0, len(last), CLIENTS_A_SHARD):
            own = last[first : first + CLIENTS_A_SHARD]
            changes[first], lacking = self._shard_changes(first, own, undone)
            missing += lacking
        return changes, missing

    def _shard_changes(
        self, first: int, last: Integers, undone: Mapping[int, bytes]
    ) -> tuple[list[Change], list[int]]:
        """What going back writes to one file, and its clients whose state is not here."""
        path, _ = self._place(first)
        changes: list[Change] = []
        missing: list[int] = []
        if not path.exists() and (last < 0).all():
            return changes, missing
        # A file that is not there reads as one in which nothing was written.
        with reported("read", path), open(path if path.exists() else os.devnull, "rb") as file:
            check_length(file.fileno(), self._length, path, first)
            for client, written in enumerate(last.tolist(), start=first):
                own, is_here = self._client_changes(
                    file.fileno(), client, written, undone.get(client)
                )
                changes += own
                if not is_here:
                    missing.append(client)
        return changes, missing

    def _client_changes(
        self, descriptor: int, client: int, written: int, undone: bytes | None
    ) -> tuple[list[Change], bool]:
        """So that one slot holds the state of a round, and none a later or a damaged one; if it is here."""
        _, offset = self._place(client)
        places = (offset, offset + self._slot)
        rounds = [self._found(descriptor, place, client) for place in places]
        kept = [found is not None and found <= written for found in rounds]
        changes = [
            (place, bytes(_HEADER.size))
            for place, stays in zip(places, kept, strict=True)
            if not stays and any(os.pread(descriptor, _HEADER.size, place))
        ]
        if written < 0 or written in rounds:
            return changes, True
        if undone is not None:
            changes.append((places[kept.index(False) if False in kept else 0], undone))
        return changes, undone is not None

    def _found(self, descriptor: int, place: int, client: int) -> int | None:
        """The round of a slot's record, None without one or if it is damaged."""
        if not any(os.pread(descriptor, _HEADER.size, place)):
            return None
        return self._whole(os.pread(descriptor, self._slot, place), client)

    def _whole(self, record: bytes, client: int) -> int | None:
        """The round of a record, None if it is damaged or none."""
        path, _ = self._place(client)
        try:
            found = self._round(record[: _HEADER.size], path, client)
            _check_arrays(record, path, client)
        except StateError:
            return None
        return found

    def forget(self) -> None:
        """Remove all states, as those of an earlier run of the same name."""
        self.cache = Cache(self.cache.most)
        self._preserved.clear()
        with reported("remove", self.folder):
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def _put(self, descriptor: int, record: bytes, place: int) -> None:
        """Write a record, the header last.

        A write that breaks off leaves a slot that is older or damaged, and the state that this one follows
        is in the other one.
        """
        write_all(descriptor, record[_HEADER.size :], place + _HEADER.size)
        write_all(descriptor, record[: _HEADER.size], place)

    def _place(self, client: int) -> tuple[Path, int]:
        """A client's shard file and its offset in it."""
        shard, row = divmod(client, CLIENTS_A_SHARD)
        return _shard_file(self.folder, shard), row * 2 * self._slot

    def _rounds(self, descriptor: int, offset: int, path: Path, client: int) -> list[int | None]:
        """The rounds of a client's two slots, None for one that was never written."""
        check_length(descriptor, self._length, path, client)
        slots = (offset, offset + self._slot)
        return [self._round(os.pread(descriptor, _HEADER.size, s), path, client) for s in slots]

    def _round(self, header: bytes, path: Path, client: int) -> int | None:
        """The round of a slot's header, or None if it was never written."""
        if not any(header):
            return None
        magic, schema, round_, _, checksum = _HEADER.unpack(header)
        if zlib.crc32(header[_CHECKED]) != checksum or magic != _MAGIC or schema != self._schema:
            raise StateError(f"{path}: the record of client {client} is damaged or of another run")
        return int(round_)

    def _pack(self, client: int, round_: int, state: Mapping[str, np.ndarray]) -> bytes:
        """A slot's bytes."""
        arrays = self._form.pack(state, f"the state of client {client}")
        header = _HEADER.pack(_MAGIC, self._schema, round_, zlib.crc32(arrays), 0)[_CHECKED]
        return header + struct.pack("<I", zlib.crc32(header)) + arrays

    def _arrays(self, record: bytes) -> ClientState:
        """The arrays of a slot, read-only."""
        return self._form.arrays(memoryview(record)[_HEADER.size :])


def _check_arrays(record: bytes, path: Path, client: int) -> None:
    """Compare a slot's arrays with its checksum."""
    checksum = _HEADER.unpack_from(record)[3]
    if zlib.crc32(memoryview(record)[_HEADER.size :]) != checksum:
        raise StateError(f"{path}: the record of client {client} does not match its checksum")


def sync_states(folder: Path, clients: Integers) -> None:
    """Have the disk hold the states of some clients, what was kept of older ones, and the files' names.

    Args:
        folder: of the shard files.
        clients: which, shape (n,).
    """
    UndoLog(undo_folder(folder)).sync()
    shards = [
        _shard_file(folder, shard) for shard in np.unique(clients // CLIENTS_A_SHARD).tolist()
    ]
    for path in (*shards, folder, folder.parent):
        if path.exists():
            with reported("write", path):
                sync(path)


def forget_undone(folder: Path, oldest: int) -> None:
    """Remove what only checkpoints before round `oldest` need."""
    UndoLog(undo_folder(folder)).forget(oldest)


def _shard_file(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:06d}.bin"
