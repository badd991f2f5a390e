"""Jobs on a cluster: what is refused before anything is sent, and what a real job server does."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from spatl_ray import submit
from spatl_ray.cli import main
from spatl_ray.errors import ConfigError, EngineError
from spatl_ray.submit import ADDRESS, connected, experiment_command, follow, send

ROOT = Path(__file__).resolve().parents[1]
FILE = "name: mine\nclients: 4\nrounds: 2\n"
RESULTS = "results.folder=/shared/results"


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ADDRESS, "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_the_command_runs_the_experiment_on_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    command, run_id = experiment_command("mine.yaml", [RESULTS, "partition={name: iid}"])
    assert command == (
        "python -m spatl_ray.cli run mine.yaml results.folder=/shared/results 'partition={name: iid}' "
        "engine.address=auto"
    )
    assert run_id.startswith("mine-")


def test_a_serial_experiment_joins_no_cluster() -> None:
    command, _ = experiment_command("demo", [RESULTS, "engine.backend=serial"])
    assert "engine.address" not in command


def test_results_that_would_go_with_the_job_are_refused() -> None:
    bucket = "results.folder=s3://bucket/results?endpoint_override=s3.example.org"
    command, _ = experiment_command("demo", [bucket])
    assert shlex.split(command)[5] == bucket
    with pytest.raises(ConfigError, match=r"results.folder must be absolute.*got 'results'"):
        experiment_command("demo", [])


@pytest.mark.parametrize("where", ["/", "../"])
def test_a_file_that_is_not_sent_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (tmp_path / "mine.yaml").write_text(FILE)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    source = str(tmp_path / "mine.yaml") if where == "/" else "../mine.yaml"
    with pytest.raises(ConfigError, match="an experiment must be a preset, or a file of"):
        experiment_command(source, [RESULTS])


def test_an_experiment_that_cannot_run_is_refused_here() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.keep"):
        experiment_command("demo", [RESULTS, "algorithm.keep=2"])


@pytest.mark.parametrize("address", ["head:8265", "http://", "gopher://head:1", "http://head:x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="--address must be that of a job server"):
        connected(address)


def test_an_address_must_be_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--address must be given"):
        connected(None)
    monkeypatch.setenv(ADDRESS, "http://one:1")
    with pytest.raises(ConfigError, match=r"must be RAY_API_SERVER_ADDRESS's 'http://one:1'"):
        connected("http://two:2")


def test_an_address_at_which_nobody_is_is_told_in_seconds() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(EngineError, match=f"{address} cannot be reached within 5 seconds"):
            connected(address)
    assert time.monotonic() - start < 10


def test_a_host_whose_name_is_none_is_told() -> None:
    with pytest.raises(EngineError, match=r"http://head\.\.lan:8265 cannot be reached"):
        connected("http://head..lan:8265")


@pytest.mark.parametrize(
    "arguments", [[], ["demo", "--command", "true"], ["--command", "true", "demo"]]
)
def test_either_an_experiment_or_a_command_is_given(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *arguments, "--address", "http://127.0.0.1:1"]) == 2
    assert "must" in capsys.readouterr().err


class Beginning:
    """A job server whose agent comes after some attempts, with the words of Ray 2.60's for that time."""

    def __init__(self, refusals: int, words: str) -> None:
        self.refusals = refusals
        self.words = words

    def submit_job(self, **_: object) -> str:
        self.refusals -= 1
        if self.refusals >= 0:
            raise RuntimeError(f"Request failed with status code 500: {self.words}.")
        return "job"


def test_a_cluster_that_has_just_begun_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "No available agent to submit job, please try again later."
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert send(Beginning(3, words), "true") == "job"  # type: ignore[arg-type]
    monkeypatch.setattr(submit, "TAKEN_WITHIN", 0.0)
    with pytest.raises(
        EngineError, match=r"did not take the job within 0 seconds.*No available agent"
    ):
        send(Beginning(10**9, words), "true")  # type: ignore[arg-type]


def test_what_a_cluster_refuses_for_good_is_not_asked_again() -> None:
    server = Beginning(10**9, "Failed to upload package")
    with pytest.raises(EngineError, match=r"did not take the job.*Failed to upload"):
        send(server, "true")  # type: ignore[arg-type]
    assert server.refusals == 10**9 - 1


class Unsteady:
    """A job server that is not reached a number of times, while its job ends, with Ray's own details."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures = failures
        self.error = error

    def _answer(self) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise self.error

    def get_job_info(self, job: str) -> object:
        from ray.job_submission import JobDetails, JobStatus, JobType

        self._answer()
        ended = {"status": JobStatus.SUCCEEDED, "driver_exit_code": 0}
        return JobDetails(type=JobType.SUBMISSION, submission_id=job, entrypoint="true", **ended)

    def get_job_logs(self, job: str) -> str:
        self._answer()
        return f"of {job}\n"


def test_a_connection_that_breaks_is_made_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tunnel that is opened again, or a laptop that sleeps; the job goes on meanwhile."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    away = ConnectionError("Connection refused")
    assert follow(Unsteady(5, away), "job") == 0  # type: ignore[arg-type]
    told = capsys.readouterr()
    assert told.out == "of job\n"
    assert told.err == "the cluster is not reached; trying for 300 seconds\n"
    monkeypatch.setattr(submit, "BACK_WITHIN", 0.0)
    with pytest.raises(
        EngineError, match=r"cannot be reached.*`spatl job job`.*Connection refused"
    ):
        follow(Unsteady(10**9, away), "job")  # type: ignore[arg-type]
    unknown = RuntimeError("Request failed with status code 404: Job job does not exist.")
    with pytest.raises(EngineError, match="job 'job' is not known to the cluster"):
        follow(Unsteady(10**9, unknown), "job")  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", ["results", "data"])
def test_a_file_that_is_left_out_of_the_sent_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "mine.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"file of the current folder, which is sent.*/{folder}"):
        experiment_command(f"{folder}/mine.yaml", [RESULTS])


@dataclass(frozen=True)
class Server:
    """A job server that asks for a token.

    Attributes:
        address: of it.
        environment: of who has the token.
    """

    address: str
    environment: dict[str, str]

    def spatl(
        self, *arguments: str, here: Path | None = None, before: str = "pass", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """The command in a process of its own: Ray reads a process' token once."""
        code = f"import sys; {before}; from spatl_ray.cli import main; sys.exit(main(sys.argv[1:]))"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments, "--address", self.address],
            env={**self.environment, **more},
            cwd=here,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On a Ray of its own."""
    folder = tmp_path_factory.mktemp("server")
    token = folder / "token"
    token.write_text("a" * 64)
    port, agent = _free_ports()
    ray = Path(sys.executable).with_name("ray")
    path = f"{ray.parent}:{os.environ['PATH']}"
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    found = Server(
        f"http://127.0.0.1:{port}",
        {**os.environ, **secret, "PATH": path, "PYTHONPATH": str(ROOT)},
    )
    short = tempfile.mkdtemp()  # sockets' paths must be short
    options = ["--port=0", "--num-cpus=1", f"--dashboard-port={port}", "--block"]
    options += [f"--temp-dir={short}", "--node-ip-address=127.0.0.1"]
    options += [f"--dashboard-agent-listen-port={agent}"]  # another Ray here has the usual one
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [ray, "start", "--head", *options],
            env=found.environment,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        until = time.monotonic() + 90
        while "is not known to the cluster" not in (told := found.spatl("job", "nobody").stderr):
            assert time.monotonic() < until, told + (folder / "log").read_text()
            time.sleep(0.5)
        yield found
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(short)


@pytest.mark.ray
def test_a_job_brings_the_folder_and_its_exit_status(server: Server, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import sys\nprint('from the folder')\nsys.exit(7)\n")
    told = server.spatl("submit", "--command", "python own.py", here=tmp_path)
    assert told.returncode == 7, told.stderr
    assert "from the folder" in told.stdout


@pytest.mark.ray
def test_jobs_that_there_are_not_are_named(server: Server) -> None:
    told = server.spatl("job", "nobody", "--stop")
    assert told.returncode == 2
    assert "job 'nobody' is not known to the cluster" in told.stderr


@pytest.mark.ray
def test_another_token_and_another_version_are_named(server: Server, tmp_path: Path) -> None:
    told = server.spatl("job", "some", before="import ray; ray.__version__ = '2.0.0'")
    assert told.returncode == 2
    assert "must be of one version here and on the cluster, got 2.0.0 here and" in told.stderr
    other = tmp_path / "other"
    other.write_text("b" * 64)
    told = server.spatl("job", "some", RAY_AUTH_TOKEN_PATH=str(other))
    assert told.returncode == 2
    assert "refuses the token" in told.stderr
