"""Results at an address: a run is killed, goes on elsewhere, and is the run that nothing happened to."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from broken_off import Stop, Watch, broken_off, without_history
from buckets import KEYS, Server, objects
from identity import assert_identical, everything
from pyarrow import fs
from small_runs import same_bits, small

from analysis.load import load
from spatl_ray import addresses, resume, run
from spatl_ray.addresses import working_folder
from spatl_ray.callbacks import Callback, Row
from spatl_ray.cli import main
from spatl_ray.config import Experiment
from spatl_ray.engine.finished import FinishedRun
from spatl_ray.engine.folders import checkpoint_folder
from spatl_ray.errors import ConfigError, ResultsError, StateError
from spatl_ray.experiments import load_experiment

pytestmark = pytest.mark.integration

ROUNDS = 6


def experiment_of(results: object, algorithm: str = "fedavg", **fields: Any) -> Experiment:
    """Six rounds with a checkpoint after each; rows are written with it."""
    checkpoints = {"seconds": 0.0, **fields.pop("checkpoints", {})}
    return small(
        Path(),
        algorithm,
        **{
            "rounds": ROUNDS,
            "checkpoints": checkpoints,
            "results": {"folder": str(results)},
            **fields,
        },
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run in a folder, never broken off."""
    experiment = experiment_of(tmp_path_factory.mktemp("whole"))
    run(experiment)
    return without_history(everything(experiment))


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from spatl_ray import Callback, Experiment, run

class Kill(Callback):
    def clients_done(self, round_, done, cohort):
        if round_ == 4:
            os.kill(os.getpid(), signal.SIGKILL)

run(Experiment.model_validate_json({experiment!r}), callbacks=[Kill()])
"""


def test_a_killed_run_goes_on_from_there(bucket: str, whole: dict[str, Any]) -> None:
    experiment = experiment_of(bucket)
    code = KILLED.format(paths=sys.path, experiment=experiment.model_dump_json())
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert load(bucket, "rounds")["round"].tolist() == [0, 1, 2, 3]
    assert load(bucket, "runs")["status"].tolist() == ["running"]
    shutil.rmtree(working_folder(bucket))
    watch = Watch()
    summary = resume(bucket, experiment.run_id, callbacks=[watch])
    assert watch.rounds == [4, 5]
    assert (summary.results, summary.folder) == (bucket, working_folder(bucket))
    assert_identical(without_history(everything(experiment)), whole)
    names = {name.split("/")[0] for name in objects(bucket)}
    assert names == {"runs", "rounds", "clients", "events", "models", "bookkeeping"}
    assert len(load(bucket, "rounds")) == ROUNDS
    (config,) = load(bucket, "runs")["config"]
    assert f'"folder":"{bucket}"' in config


def test_the_address_is_no_part_of_a_run_id(tmp_path: Path) -> None:
    address = "s3://bucket/results"
    assert experiment_of(address).run_id == experiment_of(tmp_path).run_id
    assert checkpoint_folder(experiment_of(f"{address}?scheme=http")).endswith(
        f"/results/checkpoints/run_id={experiment_of(tmp_path).run_id}?scheme=http"
    )


def test_one_address_has_one_working_copy_however_it_is_written() -> None:
    """The lock of a run is in it."""
    server = "endpoint_override=127.0.0.1:1&scheme=http"
    copies = {
        working_folder(f"s3://bucket/{path}?{options}")
        for path in ("results", "results/")
        for options in (server, "scheme=http&endpoint_override=127.0.0.1%3A1")
    }
    assert len(copies) == 1
    assert working_folder(f"s3://bucket/other?{server}") not in copies
    assert working_folder("s3://bucket/results?scheme=http") not in copies


def test_states_stay_where_the_run_began(bucket: str, tmp_path: Path) -> None:
    """Another machine refuses to go on without them, unless they lie in a shared folder."""
    experiment = experiment_of(bucket, "scaffold", rounds=3)
    broken_off(experiment, after=1)
    shutil.rmtree(working_folder(bucket))
    with pytest.raises(StateError, match=r"client \d+"):
        resume(bucket, experiment.run_id)
    engine = {"backend": "serial", "state_folder": str(tmp_path / "shared")}
    other = bucket.replace("/results?", "/shared?")
    experiment = experiment_of(other, "scaffold", rounds=3, engine=engine)
    broken_off(experiment, after=1)
    shutil.rmtree(working_folder(other))
    resume(other, experiment.run_id)
    undisturbed = experiment_of(tmp_path / "plain", "scaffold", rounds=3)
    run(undisturbed)
    first, second = everything(experiment), everything(undisturbed)
    assert_identical(without_history(first), without_history(second))


def test_a_finished_run_is_taken_up_elsewhere(bucket: str) -> None:
    experiment = experiment_of(bucket)
    run(experiment)
    before = FinishedRun(bucket, experiment.run_id).client(0)[0]
    shutil.rmtree(working_folder(bucket))
    after = FinishedRun(bucket, experiment.run_id).client(0)[0]
    assert same_bits(after.received, before.received)


def test_the_commands_take_an_address(
    bucket: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    experiment = experiment_of(bucket)
    broken_off(experiment, after=3)
    shutil.rmtree(working_folder(bucket))
    assert main(["resume", experiment.run_id, "--folder", bucket]) == 0
    told = capsys.readouterr().out
    assert f"results of run {experiment.run_id} are in {bucket}" in told
    assert f"python analysis/plots.py '{bucket}'" in told
    assert main(["resume", experiment.run_id, "--folder", bucket]) == 2
    assert "must not have finished" in capsys.readouterr().err
    assert main(["resume", "nobody", "--folder", bucket]) == 2
    assert f"'nobody'; there are: {experiment.run_id}" in capsys.readouterr().err
    assert main(["export", experiment.run_id, "--client", "0", "--folder", bucket]) == 2
    assert "algorithm" in capsys.readouterr().err


def test_a_run_that_is_there_is_refused(bucket: str) -> None:
    experiment = experiment_of(bucket, rounds=2)

    class Twice(Callback):
        def round_ended(self, row: Row) -> None:
            with pytest.raises(ResultsError, match="must not be going on already"):
                resume(bucket, experiment.run_id)

    run(experiment, callbacks=[Twice()])
    assert len(load(bucket, "rounds")) == 2
    for is_elsewhere in (False, True):
        if is_elsewhere:
            shutil.rmtree(working_folder(bucket))
        with pytest.raises(ResultsError, match=r"is already in s3://.*overwrite=true"):
            run(experiment)
    results = experiment.results.model_copy(update={"overwrite": True})
    watch = Watch()
    run(experiment.model_copy(update={"results": results}), callbacks=[watch])
    assert watch.rounds == [0, 1]
    assert len(load(bucket, "rounds")) == 2


def test_a_trace_is_there_too(bucket: str) -> None:
    engine = {"backend": "serial", "profile": True}
    experiment = experiment_of(bucket, engine=engine, rounds=1)
    run(experiment)
    assert f"profiles/{experiment.run_id}.json" in objects(bucket)


def test_a_server_that_goes_away_ends_the_run_within_seconds(
    bucket: str, s3_server: Server, whole: dict[str, Any]
) -> None:
    class GoAway(Callback):
        def round_ended(self, row: Row) -> None:
            if row["round"] == 2:
                s3_server.stop()

    experiment = experiment_of(bucket)
    before = time.monotonic()
    try:
        with pytest.raises(
            ResultsError, match=r"results.folder must be an address that can be written, got"
        ) as told:
            run(experiment, callbacks=[GoAway()])
    finally:
        s3_server.start()
    assert time.monotonic() - before < 15
    assert str(working_folder(bucket)) in str(told.value)
    assert "spatl resume" in str(told.value)
    assert load(working_folder(bucket), "rounds")["round"].tolist() == [0, 1, 2]
    assert load(working_folder(bucket), "runs")["status"].tolist() == ["failed"]
    assert load(bucket, "rounds")["round"].tolist() == [0, 1]
    resume(bucket, experiment.run_id)
    assert_identical(without_history(everything(experiment)), whole)


def test_rows_that_are_removed_there_end_the_run(bucket: str) -> None:
    class Remove(Callback):
        def round_ended(self, row: Row) -> None:
            if row["round"] == 1:
                files, base = fs.FileSystem.from_uri(bucket)
                files.delete_dir_contents(f"{base}/rounds")

    with pytest.raises(ResultsError, match=r"must stay in s3://.*got no rounds/.* any more"):
        run(experiment_of(bucket), callbacks=[Remove()])


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(20)
        yield listening.getsockname()[1]


def _refused(address: str, rule: str) -> str:
    """What a run that cannot be there is told, at once and before it loads data."""

    class Begins(Callback):
        def preparing(self, step: str) -> None:
            raise AssertionError(step)

    before = time.monotonic()
    with pytest.raises(ConfigError, match=rule) as told:
        run(experiment_of(address), callbacks=[Begins()])
    assert time.monotonic() - before < 10
    assert repr(address) in str(told.value)
    assert not working_folder(address).exists()
    return str(told.value)


def test_what_cannot_be_reached_is_told_before_any_work(
    bucket: str, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = "results.folder must be an address that can be read, with credentials from AWS_ACCESS_KEY_ID"
    _refused("s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http", read)
    monkeypatch.setattr(addresses, "ANSWERED_WITHIN", 1.0)
    monkeypatch.setattr(addresses, "ATTEMPTS", 1)
    _refused(f"s3://bucket/x?endpoint_override=127.0.0.1:{silent}&scheme=http", read)
    _refused(f"{bucket}&nonsense=1", f"{read}.*nonsense")
    other = bucket.replace("s3://", "s3://no-")
    assert "bucket does not exist" in _refused(
        other, "results.folder must be an address that can be written"
    )


def test_who_may_not_write_is_told_before_any_work(
    bucket: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = "results.folder must be an address that can be"
    with s3_server.strict() as reader:
        for keys, reason in (
            (reader, "written.*Access Denied"),
            ({**reader, "AWS_SECRET_ACCESS_KEY": "wrong"}, "read.*signature"),
            (KEYS, "read.*does not exist in our records"),
            ({}, "read, with credentials from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ):
            _set(monkeypatch, keys)
            _refused(bucket, f"{rule} {reason}")


def _set(monkeypatch: pytest.MonkeyPatch, keys: Mapping[str, str]) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    for name, value in keys.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "address",
    [
        "s3://{key}:{secret}@bucket/results",
        "s3://{key}@bucket/results",
        "s3://bucket/results?secret_key={secret}&access_key={key}",
        "s3://bucket/results?scheme=http&endpoint_override={key}:{secret}@127.0.0.1:1",
    ],
)
def test_secrets_in_an_address_are_refused_and_not_told(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key, secret = "AKIAVISIBLE", "mostsecret"
    given = address.format(key=key, secret=secret)
    run_it = ["run", "demo", "engine.backend=serial", "--traceback"]
    for field, command in (
        ("results.folder", [*run_it, f"results.folder={given}"]),
        ("checkpoints.folder", [*run_it, f"checkpoints.folder={given}"]),
        ("results.folder", ["resume", "run", "--traceback", "--folder", given]),
        ("results.folder", ["export", "run", "--client", "0", "--folder", given]),
    ):
        assert main(command) == 2
        told = capsys.readouterr()
        assert f"error: {field} must hold no credentials" in told.err
        assert "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in told.err
        assert secret not in told.out + told.err
        assert key not in told.out + told.err


@pytest.mark.parametrize("address", ["gs://bucket/x", "file:///tmp/x", "s3://", "s3:///x"])
def test_other_addresses_are_refused(address: str) -> None:
    rule = r"results.folder must be a folder, or s3://BUCKET/PATH, got"
    with pytest.raises(ConfigError, match=rule):
        load_experiment("demo", [f"results.folder={address}"])


def test_what_ends_a_run_is_told_there(bucket: str) -> None:
    experiment = experiment_of(bucket)
    with pytest.raises(RuntimeError, match="broken"):
        run(experiment, callbacks=[Stop(0, RuntimeError("broken"))])
    runs = load(bucket, "runs")
    assert runs["status"].tolist() == ["failed"]
    assert runs["error"][0].startswith("RuntimeError: broken")
