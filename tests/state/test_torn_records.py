"""Processes that the system kills while they write over a record that a checkpoint needs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spatl_ray.state.store import StateStore
from spatl_ray.update import ClientState

VALUES = 4096
KILLS = 4

KILLED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
sys.path[:0] = {paths!r}
from spatl_ray.state.store import StateStore
store = StateStore(Path({folder!r}), {{"x": np.zeros({values}, np.float32)}})
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))
store.write(1, 2, {{"x": np.full({values}, 2, np.float32)}}, 1, kept=(0,))
"""
"""Past a place in the file, the next byte kills the process."""


def whole(value: float) -> ClientState:
    return {"x": np.full(VALUES, value, np.float32)}


def begun(folder: Path) -> StateStore:
    """States of rounds 0 and 1, the first of which a checkpoint needs."""
    store = StateStore(folder, whole(0))
    store.write(1, 0, whole(0.5), -1)
    store.write(1, 1, whole(1), 0)
    return store


def killed_while_writing(store: StateStore, written: int) -> None:
    """A process repeats the round, and is killed when so many bytes of its record are there."""
    path, offset = store._place(1)
    given = {"paths": sys.path, "folder": str(store.folder), "values": VALUES}
    code = KILLED.format(**given, most=offset + written)
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGXFSZ
    assert path.read_bytes()[offset : offset + 4] == b"SPAT"


def test_a_record_that_was_torn_again_and_again_is_restored(tmp_path: Path) -> None:
    store = begun(tmp_path)
    for kill in range(KILLS):
        killed_while_writing(store, 2000 + 100 * kill)
    StateStore(tmp_path, whole(0)).write(1, 2, whole(2), 1, kept=(0,))
    assert len(list(store.undo.entries())) == 1, "what is torn is not kept"
    fresh = StateStore(tmp_path, whole(0))
    fresh.restore(np.array([-1, 0]))
    assert (fresh.read(1, 0)["x"] == 0.5).all()


@pytest.mark.parametrize("place", [3, 20, 40, 200])
def test_a_damaged_entry_does_not_hide_a_whole_one(tmp_path: Path, place: int) -> None:
    """Whichever of them comes first: in its header or in its arrays."""
    store = begun(tmp_path)
    store.write(1, 2, whole(2), 1, kept=(0,))
    (entries,) = store.undo.files()
    data = bytearray(entries.read_bytes())
    data[16 + place] ^= 4
    for name in ("000000-00000000.bin", "000000-ffffffff.bin"):
        (store.undo.folder / name).write_bytes(data)
    fresh = StateStore(tmp_path, whole(0))
    fresh.restore(np.array([-1, 0]))
    assert (fresh.read(1, 0)["x"] == 0.5).all()
