"""What a disk may hold after the machine stopped: new states at once, the rest only if written through."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from client_states import INITIAL, state, value_of

from spatl_ray.state.store import CLIENTS_A_SHARD, StateStore, sync_states

CLIENTS = (0, 1, CLIENTS_A_SHARD + 1)


class Disk:
    """Notes what was written through: how much of each file, and the names in each folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: dict[Path, int] = {}
        self.names: dict[Path, set[str]] = {}
        self.times = 0
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            self.times += 1
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_dir():
                self.names[path] = {each.name for each in path.iterdir()}
            else:
                self.sizes[path] = path.stat().st_size

        monkeypatch.setattr(os, "fsync", fsync)

    def after_power_cut(self, folder: Path, image: Path) -> Path:
        """A copy in which what was appended, or made, and not written through is gone."""
        shutil.copytree(folder, image)
        for path in sorted(folder.rglob("*")):
            if path.name not in self.names.get(path.parent, set()):
                copy = image / path.relative_to(folder)
                shutil.rmtree(copy) if copy.is_dir() else copy.unlink(missing_ok=True)
            elif path.parent.name == "undo":
                os.truncate(image / path.relative_to(folder), self.sizes.get(path, 0))
        return image


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_checkpoint_can_be_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    """Checkpoints after rounds 1 and 4; the machine stops before, between and after the others."""
    disk, folder = Disk(monkeypatch), tmp_path / "states"
    store, kept = StateStore(folder, INITIAL), tuple[int, ...]()
    for round_ in range(8):
        store.preserve(dict.fromkeys(CLIENTS, round_ - 1), kept)
        for client, value in zip(CLIENTS, range(10 * round_, 100), strict=False):
            store.write(client, round_, state(value), round_ - 1, kept)
        if round_ in (1, 4):
            sync_states(folder, np.array(CLIENTS))
            kept = (*kept, round_)[-keep:]
        if not kept:
            continue
        assert folder.name in disk.names[tmp_path]
        image = disk.after_power_cut(folder, tmp_path / f"image{round_}")
        last = np.full(CLIENTS[-1] + 1, -1)
        last[list(CLIENTS)] = kept[-1]
        found = StateStore(image, INITIAL)
        found.restore(last)
        values = [value_of(found.read(client, kept[-1])) for client in CLIENTS]
        assert values == [10 * kept[-1] + place for place in range(len(CLIENTS))]


def test_one_group_waits_for_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only in the round that first overwrites what the newest checkpoint needs."""
    disk, store, waited = Disk(monkeypatch), StateStore(tmp_path, INITIAL), []
    for round_ in range(8):
        before = disk.times
        store.preserve(dict.fromkeys(range(50), round_ - 1), (2,) if round_ > 2 else ())
        for client in range(50):
            store.write(client, round_, state(round_), round_ - 1, (2,) if round_ > 2 else ())
        waited.append(disk.times - before)
    assert waited == [0, 0, 0, 0, 3, 0, 0, 0], "a file and the names of two folders"
    assert len(list(store.undo.entries())) == 50
