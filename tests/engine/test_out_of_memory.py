"""A client that asks for more memory than there is fails alone, whoever stops it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from broken_off import without_history
from identity import assert_identical, everything
from memory_limits import can_limit, limited_memory
from troubled_runs import ON_RAY, SERIAL, statuses, told, tried, troubled

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.engine.attempts import Attempts, oom_kills
from spatl_ray.errors import EngineError

pytestmark = pytest.mark.integration


def numbers(experiment: Experiment) -> dict[str, Any]:
    """All but events, which tell why a client failed."""
    found = without_history(everything(experiment))
    return {name: values for name, values in found.items() if name != "events"}


def of_a_run_in_which_it_raised(folder: Path) -> dict[str, Any]:
    experiment = troubled(folder, {"2": "fail"}, SERIAL)
    run(experiment)
    return numbers(experiment)


def assert_only_one_failed(folder: Path, experiment: Experiment, why: str) -> None:
    """All numbers of the others are those of a run in which the client raised."""
    assert [c for c, status in statuses(folder).items() if status == "failed"] == [2]
    assert told(folder).to_numpy().tolist() == [[1, 2, "client failed", why]]
    assert_identical(numbers(experiment), of_a_run_in_which_it_raised(folder / "raised"))


@pytest.mark.parametrize(
    ("what", "why"),
    [("starve", "MemoryError"), ("starve_torch", "RuntimeError: .*can't allocate memory")],
)
@pytest.mark.parametrize(("rule", "times"), [("skip", 1), ("retry", 2)])
def test_a_client_that_is_given_no_more_memory(
    tmp_path: Path, what: str, why: str, rule: str, times: int
) -> None:
    experiment = troubled(tmp_path, {"2": what}, {**SERIAL, "on_client_failure": rule})
    run(experiment)
    ((*_, message),) = told(tmp_path).to_numpy().tolist()
    assert re.match(why, message)
    assert tried(tmp_path, 2) == times
    assert_only_one_failed(tmp_path, experiment, message)


def test_want_of_memory_may_abort_the_run(tmp_path: Path) -> None:
    engine = {**SERIAL, "on_client_failure": "abort"}
    with pytest.raises(EngineError, match=r"client 2 failed in round 1, .* is abort: MemoryError"):
        run(troubled(tmp_path, {"2": "starve"}, engine))


HOG = """
import os, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from spatl_ray.engine.attempts import Attempts
from troubles import fill
at = Attempts(Path({file!r}), follows=True).noted(1, 2)
at.__enter__()
Path({cgroup!r}, "cgroup.procs").write_text(str(os.getpid()))
fill(64)
"""


def test_those_that_follow_take_turns_in_the_round_of_the_deaths(tmp_path: Path) -> None:
    """Two processes died at once, of which one was to blame: then one of the next two is at no client."""
    one, other = (Attempts(tmp_path / f"{n}.json", follows=True) for n in ("one", "other"))
    entered = threading.Event()

    def follow(round_: int) -> None:
        with other.noted(round_, 7):
            entered.set()

    with one.noted(1, 3):
        waiting = threading.Thread(target=follow, args=(1,))
        waiting.start()
        assert not entered.wait(0.3)
        assert not (tmp_path / "other.json").exists()
    assert entered.wait(30)
    waiting.join()
    entered.clear()
    with one.noted(2, 3):
        follow(2)  # returns
    assert entered.is_set()


needs_cgroups = pytest.mark.skipif(not can_limit(), reason="no cgroup can be made here")


@needs_cgroups
def test_the_kernels_kill_is_told(tmp_path: Path) -> None:
    """A process that the kernel killed while it was at a client, and one that ended by itself."""
    file = tmp_path / "worker.json"
    before = oom_kills()
    with limited_memory(2**27) as cgroup:
        code = HOG.format(paths=sys.path, file=str(file), cgroup=str(cgroup))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == -9
    assert oom_kills() > before
    killed = Attempts(file, ended=lambda pid: f"process {pid} is gone")
    assert (killed.deaths(1, 2), killed.careful) == (1, True)
    assert (
        killed.cause(1, 2) == "the kernel killed a process of this machine for want of memory then"
    )
    at = killed.noted(1, 3)
    at.__enter__()  # and never left
    after = Attempts(file, ended=lambda pid: f"process {pid} is gone")
    assert after.cause(1, 3) == f"process {os.getpid()} is gone"
    assert after.cause(1, 2) == killed.cause(1, 2)
    assert after.cause(1, 4) == ""


@needs_cgroups
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_client_that_the_kernel_kills(tmp_path: Path) -> None:
    with limited_memory(2**28) as cgroup:
        experiment = troubled(tmp_path, {"2": "exhaust"}, ON_RAY, cgroup=str(cgroup))
        run(experiment)
    why = "the kernel killed a process of this machine for want of memory then"
    assert tried(tmp_path, 2) == 3
    assert_only_one_failed(tmp_path, experiment, f"ClientDiedError: its 2 processes died: {why}")


@needs_cgroups
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_the_kernels_kill_may_abort_the_run(tmp_path: Path) -> None:
    engine = {**ON_RAY, "on_client_failure": "abort"}
    with (
        limited_memory(2**28) as cgroup,
        pytest.raises(EngineError, match=r"client 2 failed in round 1, .*for want of memory"),
    ):
        run(troubled(tmp_path, {"2": "exhaust"}, engine, cgroup=str(cgroup)))


WATCHED = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from spatl_ray import run
from troubled_runs import troubled
run(troubled(Path({folder!r}), {{"2": "hoard"}}, {{"workers": 2}}))
"""


def memory() -> dict[str, int]:
    """What the machine tells of its memory, in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


@pytest.mark.ray
@pytest.mark.slow
def test_a_client_whose_process_ray_ends(tmp_path: Path) -> None:
    """A Ray of its own, whose memory monitor minds 3 GiB more than the machine now uses."""
    now = memory()
    if now["MemAvailable"] < 8 * 2**30:
        pytest.skip("less than 8 GiB are free")
    share = 1 - (now["MemAvailable"] - 3 * 2**30) / now["MemTotal"]
    environment = {
        **os.environ,
        "RAY_memory_usage_threshold": f"{share:.4f}",
        "RAY_memory_monitor_refresh_ms": "100",
    }
    code = WATCHED.format(paths=sys.path, folder=str(tmp_path))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    experiment = troubled(tmp_path, {"2": "hoard"}, {"workers": 2})
    why = "Ray ended it because its node was low on memory"
    assert_only_one_failed(tmp_path, experiment, f"ClientDiedError: its 2 processes died: {why}")
