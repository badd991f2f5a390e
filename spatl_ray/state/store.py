"""Client states in sharded fixed-slot files: cheap for many clients, safe for retries.

Each client has two slots, so that a round that is retried still reads the state from before it:
a slot written in round t is only read in rounds after t. A client that was never written costs
nothing (the files are sparse). Workers write different clients, so that no lock is needed.

    shard file = [client 0: slot 0, slot 1][client 1: slot 0, slot 1]...
    slot       = magic (8 bytes), schema (u32), CRC-32 of round and arrays (u32), round (i64), arrays
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spatl_ray.errors import StateError
from spatl_ray.update import ClientState

CLIENTS_A_SHARD = 1024
_HEADER = struct.Struct("<8sIIq")
_MAGIC = b"SPATLST1"
_FIELDS = slice(16, None)


class StateStore:
    """Reads and writes client states of one shape.

    Args:
        folder: of the shard files; on storage that all workers of the run share.
        initial: the state of a client that was never written; it fixes names, shapes and dtypes.
    """

    def __init__(self, folder: Path, initial: ClientState) -> None:
        self.folder = folder
        self.initial = {name: initial[name] for name in sorted(initial)}
        described = [(n, str(a.dtype), a.shape) for n, a in self.initial.items()]
        self._schema = zlib.crc32(repr(described).encode())
        self._payload = sum(a.nbytes for a in self.initial.values())
        self._slot = _HEADER.size + self._payload

    def read(self, client: int, before: int) -> ClientState:
        """The client's newest state written in a round before `before`; else the initial one.

        Raises:
            StateError: the record is damaged, or of another schema.
        """
        if not self.initial:
            return {}
        path, offset = self._place(client)
        if not path.exists():
            return dict(self.initial)
        with path.open("rb") as file:
            rounds = [
                self._round(file.fileno(), offset + slot * self._slot, path, client)
                for slot in (0, 1)
            ]
            readable = [(r, slot) for slot, r in enumerate(rounds) if r is not None and r < before]
            if not readable:
                return dict(self.initial)
            slot = max(readable)[1]
            record = os.pread(file.fileno(), self._slot, offset + slot * self._slot)
        return self._unpack(record, path, client)

    def write(self, client: int, round_: int, state: Mapping[str, np.ndarray]) -> None:
        """Write the client's state after `round_`; the state from before that round stays readable.

        Raises:
            StateError: arrays of other names, shapes or dtypes than the initial state's.
        """
        if not self.initial:
            return
        record = self._pack(client, round_, state)
        path, offset = self._place(client)
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            rounds = [
                self._round(descriptor, offset + s * self._slot, path, client) for s in (0, 1)
            ]
            os.pwrite(descriptor, record, offset + _victim(rounds, round_) * self._slot)
        finally:
            os.close(descriptor)

    def _place(self, client: int) -> tuple[Path, int]:
        """A client's shard file and its offset in it."""
        shard, row = divmod(client, CLIENTS_A_SHARD)
        return self.folder / f"shard-{shard:06d}.bin", row * 2 * self._slot

    def _round(self, descriptor: int, offset: int, path: Path, client: int) -> int | None:
        """The round of a slot, or None if it was never written."""
        header = os.pread(descriptor, _HEADER.size, offset)
        if len(header) < _HEADER.size or header == bytes(_HEADER.size):
            return None
        magic, schema, _, round_ = _HEADER.unpack(header)
        if magic != _MAGIC or schema != self._schema:
            raise StateError(f"{path}: the record of client {client} is damaged or of another run")
        return int(round_)

    def _pack(self, client: int, round_: int, state: Mapping[str, np.ndarray]) -> bytes:
        """A slot's bytes."""
        described = {n: (str(a.dtype), a.shape) for n, a in state.items()}
        expected = {n: (str(a.dtype), a.shape) for n, a in self.initial.items()}
        if described != expected:
            raise StateError(f"the state of client {client} must be {expected}, got {described}")
        arrays = b"".join(np.ascontiguousarray(state[name]).tobytes() for name in self.initial)
        tail = struct.pack("<q", round_) + arrays
        return _HEADER.pack(_MAGIC, self._schema, zlib.crc32(tail), round_) + arrays

    def _unpack(self, record: bytes, path: Path, client: int) -> ClientState:
        """The arrays of a slot, checked against its checksum."""
        checksum = _HEADER.unpack_from(record)[2]
        if len(record) != self._slot or zlib.crc32(record[_FIELDS]) != checksum:
            raise StateError(f"{path}: the record of client {client} does not match its checksum")
        state = {}
        offset = _HEADER.size
        for name, like in self.initial.items():
            values = np.frombuffer(record, like.dtype, like.size, offset)
            state[name] = values.reshape(like.shape)
            offset += like.nbytes
        return state


def _victim(rounds: list[int | None], round_: int) -> int:
    """The slot to overwrite: the same round's, else an empty one, else a later one's, else the older.

    Whatever is newest from before `round_` stays.
    """
    for slot, written in enumerate(rounds):
        if written == round_:
            return slot
    for slot, written in enumerate(rounds):
        if written is None or written > round_:
            return slot
    return min((0, 1), key=lambda slot: rounds[slot] or 0)
