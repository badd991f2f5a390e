"""Records that a later round has overwritten, kept while a checkpoint may need them.

A client state has two slots, so that the last two rounds of a client can be read. A checkpoint may be
older. Before a record that a kept checkpoint needs is overwritten, its bytes are appended here:

    file  = undo/SEGMENT-TOKEN.bin; SEGMENT is the newest kept checkpoint, TOKEN a process's own
    entry = magic (4 bytes), client (i64), length (u32), the record

A record carries its own round and checksums. What a process wrote when it was killed is cut off.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from spatl_ray.places import sync
from spatl_ray.state.disk import reported, write_all

_ENTRY = struct.Struct("<4sqI")
_MAGIC = b"UNDO"


def is_needed(written: int | None, after: int, kept: Sequence[int]) -> bool:
    """Whether a record is a client's last one at some checkpoint.

    Args:
        written: the round of the record, None if there is none.
        after: the round of the client's next record, -1 for none.
        kept: rounds of the checkpoints.
    """
    return written is not None and any(written <= round_ < after for round_ in kept)


def undo_folder(folder: Path) -> Path:
    """Where overwritten records are kept."""
    return folder / "undo"


class UndoLog:
    """The entries of one folder; each process appends to files of its own.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._token = uuid4().hex[:8]

    def append(self, client: int, record: bytes, kept: Sequence[int]) -> None:
        """Keep a record, before its place is overwritten.

        Raises:
            StateError: it cannot be written; nothing of it stays.
        """
        entry = _ENTRY.pack(_MAGIC, client, len(record)) + record
        path = self.folder / f"{max(kept):06d}-{self._token}.bin"
        with reported("write", path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab", buffering=0) as file:
                end = file.tell()
                try:
                    write_all(file.fileno(), entry, end)
                except OSError:
                    file.truncate(end)  # What came behind it would not be found.
                    raise

    def entries(self) -> Iterator[tuple[int, bytes]]:
        """Client and record of every whole entry, in no order."""
        for path in self.files():
            with reported("read", path):
                data = path.read_bytes()
            start = 0
            while start + _ENTRY.size <= len(data):
                magic, client, length = _ENTRY.unpack_from(data, start)
                start += _ENTRY.size
                if magic != _MAGIC or start + length > len(data):
                    break
                yield client, data[start : (start := start + length)]

    def forget(self, oldest: int) -> None:
        """Remove what only checkpoints before round `oldest` need."""
        for path in self.files():
            if int(path.name.partition("-")[0]) < oldest:
                with reported("remove", path):
                    path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """The files, of all processes."""
        return sorted(self.folder.glob("*-*.bin"))

    def sync(self) -> None:
        """Have the disk hold all entries, whoever appended them."""
        self._sync("*-*.bin")

    def settle(self) -> None:
        """Have the disk hold the entries of this process."""
        self._sync(f"*-{self._token}.bin")

    def _sync(self, pattern: str) -> None:
        for path in (*self.folder.glob(pattern), self.folder, self.folder.parent):
            if path.exists():
                with reported("write", path):
                    sync(path)
