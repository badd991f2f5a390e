"""A run that was broken off and goes on is the run that was never broken off."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from broken_off import (
    ALGORITHMS,
    ROUNDS,
    Watch,
    broken_off,
    experiment_of,
    started_or_resumed,
    without_history,
)
from identity import assert_identical, everything
from stopping import listening

from spatl_ray import resume, run
from spatl_ray.callbacks import Callback
from spatl_ray.cli import main
from spatl_ray.config import Experiment
from spatl_ray.engine.checkpoint import Checkpoints
from spatl_ray.engine.folders import checkpoint_folder, state_folder
from spatl_ray.errors import ResultsError, StateError
from spatl_ray.results import files

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Runs that were never broken off."""
    found = {}
    for name in ALGORITHMS:
        experiment = experiment_of(tmp_path_factory.mktemp(name), name, checkpoints={"every": 0})
        run(experiment)
        found[name] = without_history(everything(experiment))
    return found


@pytest.mark.parametrize(("name", "every"), [("fedavg", 1), ("scaffold", 2), ("agent", 3)])
def test_it_goes_on_from_a_checkpoint(
    tmp_path: Path, whole: dict[str, dict[str, Any]], name: str, every: int
) -> None:
    """Broken off after round 4, before that round's checkpoint."""
    experiment = experiment_of(tmp_path, name, checkpoints={"every": every})
    broken_off(experiment, after=4)
    watch = Watch()
    resume(tmp_path, experiment.run_id, callbacks=[watch])
    first = {1: 4, 2: 4, 3: 3}[every]
    assert watch.rounds == list(range(first, ROUNDS))
    assert [(e["kind"], e["message"]) for e in watch.events][:1] == [
        ("resumed", f"from round {first} on")
    ]
    assert_identical(without_history(everything(experiment)), whole[name])
    assert not Path(checkpoint_folder(experiment)).exists()
    assert not list(state_folder(experiment).rglob("undo/*"))


def test_it_begins_again_without_a_checkpoint(
    tmp_path: Path, whole: dict[str, dict[str, Any]]
) -> None:
    experiment = experiment_of(tmp_path, "scaffold", checkpoints={"every": 0})
    broken_off(experiment, after=2)
    watch = Watch()
    resume(tmp_path, experiment.run_id, callbacks=[watch])
    assert watch.rounds == list(range(ROUNDS))
    assert_identical(without_history(everything(experiment)), whole["scaffold"])


def test_an_interrupted_run_loses_no_round(
    tmp_path: Path, whole: dict[str, dict[str, Any]]
) -> None:
    """Checkpoints are due every hour; Ctrl-C takes one."""
    experiment = experiment_of(tmp_path, "agent", checkpoints={"seconds": 3600.0})

    class Interrupt(Callback):
        def clients_done(self, round_: int, done: int, cohort: int) -> None:
            if round_ == 3:
                raise KeyboardInterrupt

    assert run(experiment, callbacks=[Interrupt()]).status == "interrupted"
    watch = Watch()
    resume(tmp_path, experiment.run_id, callbacks=[watch])
    assert watch.rounds == [3, 4, 5]
    assert_identical(without_history(everything(experiment)), whole["agent"])


def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, whole: dict[str, dict[str, Any]]
) -> None:
    experiment = experiment_of(tmp_path, "agent", checkpoints={"keep": 3})
    broken_off(experiment, after=4)
    folder = Path(checkpoint_folder(experiment))
    assert [path.name for path in sorted(folder.iterdir())] == [
        f"round-{round_:06d}.ckpt" for round_ in (1, 2, 3)
    ]
    data = bytearray((folder / "round-000003.ckpt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "round-000003.ckpt").write_bytes(data)
    (folder / "round-000002.ckpt").write_bytes(b"")
    watch = Watch()
    resume(tmp_path, experiment.run_id, callbacks=[watch])
    assert watch.rounds == [2, 3, 4, 5]
    assert [event["kind"] for event in watch.events[:3]] == [
        "resumed",
        "damaged checkpoint",
        "damaged checkpoint",
    ]
    assert_identical(without_history(everything(experiment)), whole["agent"])


def test_a_lost_state_is_said_before_anything_is_done(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path, "scaffold")
    broken_off(experiment, after=4)
    for path in state_folder(experiment).rglob("*.bin"):
        path.unlink()
    before = pd.read_parquet(tmp_path / "rounds")
    with pytest.raises(StateError, match=r"the state of client \d+ after round \d is lost"):
        resume(tmp_path, experiment.run_id)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "rounds"), before)


def test_what_has_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = experiment_of(tmp_path, "fedavg")
    with pytest.raises(ResultsError, match="RUN must be a run in"):
        resume(tmp_path, experiment.run_id)
    broken_off(experiment, after=2)
    from spatl_ray.engine import resume as module

    now = module.software(experiment)
    monkeypatch.setattr(module, "software", lambda experiment: {**now, "torch": "1.0"})
    with pytest.raises(ResultsError, match=r"software that it began with, got torch 1.0 instead"):
        resume(tmp_path, experiment.run_id)
    resume(tmp_path, experiment.run_id, force=True)
    with pytest.raises(ResultsError, match="must not have finished, got status 'finished'"):
        resume(tmp_path, experiment.run_id)


def test_the_command_line_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = experiment_of(tmp_path, "scaffold")
    broken_off(experiment, after=3)
    assert main(["resume", "nothing", "--folder", str(tmp_path)]) == 2
    assert "RUN must be a run in" in capsys.readouterr().err
    assert main(["resume", experiment.run_id, "--folder", str(tmp_path)]) == 0
    assert f"results of run {experiment.run_id} are in {tmp_path}" in capsys.readouterr().out
    assert main(["resume", experiment.run_id, "--folder", str(tmp_path)]) == 2
    assert "must not have finished" in capsys.readouterr().err


def write_patients(path: Path, seed: int) -> None:
    """A small Parquet data set; the config only names its file."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, 300)
    features = {f"x{i}": (label == i) + rng.normal(0, 0.1, 300) for i in range(4)}
    pd.DataFrame({**features, "label": label}).to_parquet(path)


def test_other_data_are_refused_unless_forced(tmp_path: Path) -> None:
    """The same config, whose data set is another one now."""
    source = tmp_path / "patients.parquet"
    write_patients(source, 0)
    data = {"name": "parquet", "root": str(source), "options": {"label": "label"}}
    fields: dict[str, Any] = {"data": data, "model": {"name": "mlp", "options": {"hidden": [8]}}}
    folder = tmp_path / "results"
    experiment = experiment_of(folder, "scaffold", **fields)
    broken_off(experiment, after=2)
    before = pd.read_parquet(folder / "runs")["data_fingerprint"].tolist()
    write_patients(source, 1)
    with pytest.raises(ResultsError, match=r"the data that it began with .* --force"):
        resume(folder, experiment.run_id)
    again = {"folder": str(folder), "overwrite": True}
    with pytest.raises(ResultsError, match="is one of other data"):
        run(experiment_of(folder, "scaffold", **fields, results=again))
    assert list(Path(checkpoint_folder(experiment)).iterdir())  # refused before it is touched
    resume(folder, experiment.run_id, force=True)
    assert pd.read_parquet(folder / "runs")["data_fingerprint"].tolist() != before
    assert pd.read_parquet(folder / "rounds")["round"].tolist() == list(range(ROUNDS))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    one, other = experiment_of(tmp_path, "fedavg"), experiment_of(tmp_path, "fedavg", seed=1)
    for each in (one, other):
        broken_off(each, after=3)
    folders = [Path(checkpoint_folder(each)) for each in (one, other)]
    for path in folders[1].iterdir():
        shutil.copy(path, folders[0] / path.name)
    with pytest.raises(
        ResultsError, match=r"the checkpoint must be of run '.*-s0-.* got one of '.*-s1-"
    ):
        resume(tmp_path, one.run_id)


def killed_again_and_again(
    folder: Path, name: str, moments: Sequence[float], **fields: Any
) -> Experiment:
    """A run whose process is killed so many seconds after each start, until it ends."""
    for moment in moments:
        process = started_or_resumed(folder, name, fields)
        started = time.monotonic()
        while not list(folder.rglob("checkpoints/*/*.ckpt")) and process.poll() is None:
            time.sleep(0.005)
            assert time.monotonic() - started < 120
        time.sleep(moment)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    experiment = experiment_of(folder, name, **fields)
    status = pd.read_parquet(folder / "runs")["status"].iloc[0]
    if status != "finished":
        resume(folder, experiment.run_id)
    return experiment


@pytest.mark.parametrize(
    "name", ["agent", *(pytest.param(n, marks=pytest.mark.slow) for n in ("fedavg", "scaffold"))]
)
def test_a_killed_process_loses_nothing(
    tmp_path: Path, whole: dict[str, dict[str, Any]], name: str
) -> None:
    moments = np.random.default_rng(len(name)).uniform(0, 0.4, size=3).tolist()
    experiment = killed_again_and_again(tmp_path, name, moments)
    assert_identical(without_history(everything(experiment)), whole[name])


def test_checkpoints_hold_no_code(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path, "scaffold")
    broken_off(experiment, after=3)
    files = Checkpoints(checkpoint_folder(experiment), 2)
    found, faults = files.newest()
    assert faults == []
    assert found is not None
    assert found.round == 2
    data = (Path(checkpoint_folder(experiment)) / "round-000002.ckpt").read_bytes()
    assert data[:12] == b"SPATLCKPT_01"
    assert b"pickle" not in data


def test_events_of_a_run_stopped_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C as the disk has been given the events' file, once a round was written: each event once."""
    fields = {"aggregation": {"clip_norm": 0.01}, "checkpoints": {"every": 1}}
    quiet = experiment_of(tmp_path / "quiet", "fedavg", **fields)
    run(quiet)
    folder = tmp_path / "loud"
    results = {"folder": str(folder), "flush_seconds": 0}
    experiment = experiment_of(folder, "fedavg", **fields, results=results)
    undisturbed, synced = files.sync, list[Path]()

    def disturbed(path: Path) -> None:
        undisturbed(path)
        if path == folder / "events" / f"run_id={experiment.run_id}":
            synced.append(path)
            if len(synced) == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with listening(), monkeypatch.context() as patch:
        patch.setattr(files, "sync", disturbed)
        assert run(experiment).status == "interrupted"
    resume(folder, experiment.run_id)
    found = without_history(everything(experiment))
    assert len(found["events"]) == ROUNDS * 5
    assert_identical(found, without_history(everything(quiet)))
