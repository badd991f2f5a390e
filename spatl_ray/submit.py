"""Experiments and other commands as jobs of a Ray cluster: sent and followed from here, run there.

Only HTTP goes to the cluster (Ray's job API), so that the laptop may be behind a firewall with one tunnel.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from spatl_ray.addresses import is_address
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError, EngineError
from spatl_ray.experiments import load_experiment, presets

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

T = TypeVar("T")

ADDRESS = "RAY_API_SERVER_ADDRESS"
"""The environment variable that Ray itself takes a job server's address from."""

REACHED_WITHIN = 5.0
"""Seconds in which a cluster must answer."""

TAKEN_WITHIN = 60.0
"""Seconds in which a cluster must take a job: one that has just begun answers before it can."""

BACK_WITHIN = 300.0
"""Seconds in which a cluster whose job is followed must be reached again."""

NOT_YET = "try again later"
"""What Ray's job server says in that time."""

TALKATIVE = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray that tell of each file."""

LEFT_OUT = ("/.git", "/.venv", "/results", "/data", "/dist", "/build", "**/__pycache__")
"""What of the current folder is not sent along, besides what its .gitignore names."""


def experiment_command(source: str, overrides: Sequence[str]) -> tuple[str, str]:
    """What the cluster is to run for an experiment, and the run's id.

    Args:
        source: a preset's name, or a YAML file in the current folder or below it, which is sent along.
        overrides: key=value each.

    Raises:
        ConfigError: it cannot run, or its results would be lost with the job's folder.
    """
    experiment = load_experiment(source, overrides)
    _check(experiment, source)
    own = [f"engine.address={experiment.engine.address or 'auto'}"]
    command = [
        "python",
        "-m",
        "spatl_ray.cli",
        "run",
        source,
        *overrides,
        *(own if experiment.engine.backend == "ray" else []),
    ]
    return shlex.join(command), experiment.run_id


def _check(experiment: Experiment, source: str) -> None:
    faults = []
    folder = experiment.results.folder
    if not is_address(folder) and not Path(folder).is_absolute():
        faults.append(
            "results.folder must be absolute, on storage that the cluster shares, or an address, for a job: "
            f"its own folder is removed after it; got {folder!r}"
        )
    path = Path(source)
    is_sent = not path.is_absolute() and path.resolve().is_relative_to(Path.cwd())
    if is_sent:
        first = path.resolve().relative_to(Path.cwd()).parts[0]
        is_sent = f"/{first}" not in LEFT_OUT
    if source not in presets() and not is_sent:
        faults.append(
            "an experiment must be a preset, or a file of the current folder, which is sent without "
            f"{', '.join(LEFT_OUT)}; got {source!r}"
        )
    if faults:
        raise ConfigError(faults)


def connected(address: str | None) -> JobSubmissionClient:
    """A client of a cluster's job server.

    Args:
        address: http://HOST:PORT, by default that of RAY_API_SERVER_ADDRESS.

    Raises:
        ConfigError: no address, or one that is no URL.
        EngineError: the cluster does not answer, refuses the token, or has another version of Ray.
    """
    given = os.environ.get(ADDRESS)
    if address and given and address != given:
        raise ConfigError(
            f"--address must be {ADDRESS}'s {given!r} if that is set, got {address!r}"
        )
    address = address or given
    if not address:
        raise ConfigError(f"--address must be given, such as http://HEAD:8265, or {ADDRESS} be set")
    _check_answers(address)
    os.environ.pop(
        "RAY_ADDRESS", None
    )  # which the client would take instead of the one it is given
    import ray
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        client = JobSubmissionClient(address)
    except AuthenticationError as error:
        raise EngineError(
            f"{address} refuses the token: RAY_AUTH_MODE=token and the cluster's token in ~/.ray/auth_token, "
            f"RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN are needed: {_first_line(error)}"
        ) from error
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise EngineError(
            f"{address} is no job server of a Ray cluster: {_first_line(error)}"
        ) from error
    there = getattr(client, "_server_ray_version", "a version that it does not tell")
    if there != ray.__version__:
        raise EngineError(
            f"Ray must be of one version here and on the cluster, got {ray.__version__} here and {there} "
            f"at {address}"
        )
    return client


def _check_answers(address: str) -> None:
    """Whether something listens; the client itself would wait for minutes."""
    try:
        url = urlsplit(address)
        port = {"http": 80, "https": 443}[url.scheme]
        port = url.port or port
        host = str(url.hostname or "")
        if not host:
            raise ValueError(address)
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"--address must be that of a job server, such as http://HEAD:8265, got {address!r}"
        ) from error
    try:
        socket.create_connection((host, port), REACHED_WITHIN).close()
    except (OSError, UnicodeError) as error:
        raise EngineError(
            f"{address} cannot be reached within {REACHED_WITHIN:g} seconds: {error}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def send(client: JobSubmissionClient, command: str, run_id: str | None = None) -> str:
    """Have the cluster run a command in a copy of the current folder; the job's id.

    Args:
        client: of the cluster.
        command: of a shell.
        run_id: of the experiment that it runs, which the dashboard shows.

    Raises:
        EngineError: the cluster does not take it within a minute, or at all, as with too large a folder.
    """
    environment = {
        "working_dir": str(Path.cwd()),
        "excludes": list(LEFT_OUT),
        "env_vars": {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"},
    }
    until = time.monotonic() + TAKEN_WITHIN
    while True:
        try:
            return client.submit_job(
                entrypoint=command,
                runtime_env=environment,
                metadata={"run": run_id} if run_id else {},
            )
        except (RuntimeError, ValueError, OSError) as error:
            if NOT_YET not in str(error):
                raise EngineError(f"the cluster did not take the job: {error}") from error
            if time.monotonic() > until:
                raise EngineError(
                    f"the cluster did not take the job within {TAKEN_WITHIN:g} seconds; two Rays on its head "
                    f"need a `ray start --dashboard-agent-listen-port` of their own each: {error}"
                ) from error
        time.sleep(1.0)


def follow(client: JobSubmissionClient, job: str) -> int:
    """Print what a job prints until it ends; its exit status.

    A connection that breaks is made again, within five minutes. KeyboardInterrupt leaves the job as it is.

    Args:
        client: of the cluster.
        job: its id.

    Raises:
        EngineError: there is no such job, or the cluster is not reached any more.
    """
    from aiohttp import ClientError

    printed = 0

    async def tail() -> None:
        """From what is printed on; the cluster tells all of it again."""
        nonlocal printed
        position = 0
        async for text in client.tail_job_logs(job):
            _print(text[max(0, printed - position) :])
            position += len(text)
            printed = max(printed, position)

    while not (details := _reached(details_of, client, job)).status.is_terminal():
        with suppress(RuntimeError, OSError, ClientError):
            asyncio.run(tail())
            continue
        time.sleep(1.0)  # before another connection
    _print(_reached(_logs_of, client, job)[printed:])
    return _ended(details)


def _reached(
    ask: Callable[[JobSubmissionClient, str], T], client: JobSubmissionClient, job: str
) -> T:
    """What the cluster says of a job, once it is reached: a tunnel may be opened again, the job goes on."""
    until, is_told = time.monotonic() + BACK_WITHIN, False
    while True:
        try:
            return ask(client, job)
        except OSError as error:
            if time.monotonic() > until:
                raise EngineError(
                    f"the cluster cannot be reached any more; its job may go on, and `spatl job {job}` "
                    f"follows it again: {_first_line(error)}"
                ) from error
        if not is_told:
            print(
                f"the cluster is not reached; trying for {BACK_WITHIN:g} seconds", file=sys.stderr
            )
            is_told = True
        time.sleep(1.0)


def _logs_of(client: JobSubmissionClient, job: str) -> str:
    """What a job printed; nothing, if the node that has it is gone."""
    try:
        return client.get_job_logs(job)
    except RuntimeError as error:
        print(f"what job {job} printed last cannot be read: {_first_line(error)}", file=sys.stderr)
        return ""


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _ended(details: JobDetails) -> int:
    """How a job ended: its command's exit status, or 1 if it has none; why goes to standard error."""
    if details.driver_exit_code is None or details.status != "SUCCEEDED":
        print(f"job {details.status.lower()}: {details.message}", file=sys.stderr)
    if details.driver_exit_code is None:
        return 1
    return int(details.driver_exit_code)


def details_of(client: JobSubmissionClient, job: str) -> JobDetails:
    """What the cluster knows of a job.

    Args:
        client: of the cluster.
        job: its id.

    Raises:
        EngineError: it knows nothing.
        OSError: it cannot be reached.
    """
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        raise EngineError(
            f"job {job!r} is not known to the cluster: {_first_line(error)}"
        ) from error


def stop(client: JobSubmissionClient, job: str) -> bool:
    """Have a job end; whether it was going on. A run's results stay, and `spatl resume` goes on with it.

    Args:
        client: of the cluster.
        job: its id.

    Raises:
        EngineError: there is no such job, or the cluster does not answer.
    """
    try:
        details_of(client, job)
        return bool(client.stop_job(job))
    except (RuntimeError, OSError) as error:
        raise EngineError(f"job {job!r} cannot be stopped: {_first_line(error)}") from error
