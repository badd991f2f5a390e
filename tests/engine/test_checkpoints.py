"""Checkpoint files: whole or not at all, found out when damaged, on disks and on S3."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken_off import Watch, broken_off, experiment_of, without_history
from hypothesis import given, settings
from hypothesis import strategies as st
from identity import assert_identical, everything
from mounts import can_mount
from pyarrow import fs
from safetensors.numpy import save

from spatl_ray import resume, run
from spatl_ray.engine.checkpoint import MAGIC, Checkpoint, Checkpoints, from_bytes
from spatl_ray.engine.folders import checkpoint_folder
from spatl_ray.errors import ConfigError, SpatlError, StateError


def checkpoint(round_: int) -> Checkpoint:
    server = {"model": np.arange(7, dtype=np.float32) + round_, "none": np.zeros((0, 3))}
    driver = {"last": np.array([round_, -1]), "cost normal": np.eye(2)}
    return Checkpoint(round_, server, driver, {"ledger": {"bytes_up": 2**40}, "lost": 0})


def equal(one: Checkpoint, other: Checkpoint) -> bool:
    def flat(each: Checkpoint) -> dict[str, Any]:
        return {f"{p}/{n}": a for p in ("server", "driver") for n, a in getattr(each, p).items()}

    assert_identical(flat(one), flat(other))
    facts = {k: v for k, v in one.facts.items() if k != "round"}
    return one.round == other.round and facts == {
        k: v for k, v in other.facts.items() if k != "round"
    }


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    files = Checkpoints(str(tmp_path / "new" / "place"), keep=2)
    assert files.newest() == (None, [])
    for round_ in range(5):
        kept = files.save(checkpoint(round_))
        assert kept == [k for k in (round_ - 1, round_) if k >= 0] == files.rounds()
    found, faults = files.newest()
    assert found is not None
    assert equal(found, checkpoint(4))
    assert faults == []
    files.save(checkpoint(2))  # a run that went back
    assert files.rounds() == [2]
    files.clear()
    assert not (tmp_path / "new" / "place").exists()


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_damage_is_found_out(data: st.DataObject) -> None:
    whole = checkpoint(3).to_bytes()
    damaged = bytearray(whole)
    kind = data.draw(st.sampled_from(["flip", "cut", "grow"]))
    if kind == "flip":
        place = data.draw(st.integers(0, len(whole) - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        damaged += data.draw(st.binary(min_size=1, max_size=64))
    with pytest.raises(StateError, match="the file must"):
        from_bytes(bytes(damaged), "the file")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 40,
        save({"x": np.zeros(3)}),
        save({"x": np.zeros(3)}, {"facts": "{"}),
        save({"server/x": np.zeros(3)}, {"facts": "{}"}),
        save({"x": np.zeros(3)}, {"facts": json.dumps({"round": 3})}),
    ],
)
def test_a_sound_checksum_over_something_else_is_refused(content: bytes) -> None:
    import hashlib

    with pytest.raises(StateError, match="the file must hold"):
        from_bytes(MAGIC + hashlib.sha256(content).digest() + content, "the file")


def test_files_of_others_stay(tmp_path: Path) -> None:
    files = Checkpoints(str(tmp_path), keep=1)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "round-1.ckpt").write_text("mine")
    files.save(checkpoint(0))
    files.save(checkpoint(1))
    files.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "round-1.ckpt"]


def test_what_killed_processes_had_begun_to_write_goes(tmp_path: Path) -> None:
    files, part = Checkpoints(str(tmp_path / "place"), keep=2), ".round-000003.ckpt.4711"
    files.save(checkpoint(2))
    for over in (lambda: files.save(checkpoint(3)), files.clear):
        (tmp_path / "place" / part).write_bytes(checkpoint(3).to_bytes()[:100])
        assert files.newest()[1] == []
        over()
        assert not (tmp_path / "place" / part).exists()


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"checkpoints.folder must be reached, got"):
        Checkpoints("nowhere://bucket", 1)
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"checkpoints.folder must be written"):
        Checkpoints(str(tmp_path / "file"), 1).save(checkpoint(0))
    for place in (
        str(tmp_path / "file"),
        "s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http",
    ):
        experiment = experiment_of(tmp_path / "results", "fedavg", checkpoints={"folder": place})
        with pytest.raises(SpatlError, match=r"checkpoints.folder must be"):
            run(experiment)
    assert not list((tmp_path / "results").rglob("*.parquet"))
    for field, value in (("every", -1), ("keep", 0), ("seconds", -1.0), ("folder", "")):
        with pytest.raises(ConfigError, match=f"checkpoints.{field}"):
            experiment_of(tmp_path, "fedavg", checkpoints={field: value})


FULL = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
from test_checkpoints import checkpoint
from dataclasses import replace
from spatl_ray.engine.checkpoint import Checkpoints
from spatl_ray.errors import StateError
files = Checkpoints({place!r}, 2)
files.save(checkpoint(0))
large = replace(checkpoint(1), server={{"model": np.zeros(2**20)}})
try:
    files.save(large)
except StateError as error:
    assert "No space left" in str(error), error
else:
    raise AssertionError("a full disk was not noticed")
found, faults = files.newest()
assert found.round == 0 and faults == [] and files.rounds() == [0]
import os
assert os.listdir({place!r}) == ["round-000000.ckpt"]
"""


@pytest.mark.skipif(not can_mount(), reason="no disk can be mounted here")
def test_a_full_disk_leaves_the_last_one(tmp_path: Path) -> None:
    """A disk of one megabyte, in a mount namespace of its own."""
    place = tmp_path / "small"
    place.mkdir()
    code = FULL.format(paths=[str(Path(__file__).parent), *sys.path], place=str(place))
    script = tmp_path / "full.py"
    script.write_text(code)
    command = f'mount -t tmpfs -o size=1m none "{place}" && exec "{sys.executable}" "{script}"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.integration
def test_a_run_goes_on_from_s3(tmp_path: Path, bucket: str) -> None:
    place = {"folder": bucket}
    experiment = experiment_of(tmp_path / "here", "scaffold", checkpoints=place)
    broken_off(experiment, after=4)
    files = Checkpoints(checkpoint_folder(experiment), 2)
    assert files.rounds() == [2, 3]
    assert not (tmp_path / "here" / "checkpoints").exists()
    stored, folder = fs.FileSystem.from_uri(checkpoint_folder(experiment))
    path = f"{folder}/round-000003.ckpt"
    with stored.open_input_file(path) as file:
        content = file.read()
    with stored.open_output_stream(path) as file:
        file.write(content[:-1])
    watch = Watch()
    resume(tmp_path / "here", experiment.run_id, callbacks=[watch])
    assert watch.rounds == [3, 4, 5]
    assert watch.events[1]["kind"] == "damaged checkpoint"
    assert files.rounds() == []
    plain = experiment_of(tmp_path / "there", "scaffold")
    run(plain)
    assert_identical(without_history(everything(experiment)), without_history(everything(plain)))


def test_a_run_has_a_place_of_its_own_below_the_given_one(tmp_path: Path) -> None:
    """The name tells runs of other results folders apart; what is behind a question mark stays there."""
    place = "s3://bucket/x/?endpoint_override=127.0.0.1:1"
    experiment = experiment_of(tmp_path, "fedavg", checkpoints={"folder": place})
    name = f"run_id={experiment.run_id}-{zlib.crc32(str(tmp_path).encode()):08x}"
    assert checkpoint_folder(experiment) == f"s3://bucket/x/{name}?endpoint_override=127.0.0.1:1"
    local = experiment_of(tmp_path, "fedavg", checkpoints={"folder": str(tmp_path / "there")})
    assert checkpoint_folder(local) == str(tmp_path / "there" / name)
