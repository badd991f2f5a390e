"""`sbatch cluster/slurm.sh` for real: a Slurm of our own on two hosts of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from broken_off import without_history
from hosts import SHARED, Host, hosts, missing
from identity import assert_identical, everything

from spatl_ray import load_experiment, run

SLURM = ("slurmctld", "slurmd", "sbatch", "munged")
LACKING = missing() or next((each for each in SLURM if not shutil.which(each)), None)
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(LACKING is not None, reason=f"needs {LACKING}"),
]

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
ClusterName=spatl
SlurmctldHost={first.name}({first.address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=/run/munge/socket
StateSaveLocation=/tmp/slurmctld
SlurmdSpoolDir=/tmp/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MailProg=/bin/true
KillWait=60
PartitionName=all Nodes=ALL Default=YES State=UP
"""
NODE = "NodeName={host.name} NodeAddr={host.address} CPUs={cpus} State=UNKNOWN\n"

DAEMONS = """
set -eu
mount --bind {shared}/hosts /etc/hosts
mkdir -p /run/munge /tmp/slurmctld /tmp/slurmd
munged --force --key-file={shared}/munge.key --socket=/run/munge/socket --pid-file=/run/munge/pid \
    --log-file=/tmp/munge.log --seed-file=/tmp/munge.seed
export SLURM_CONF={shared}/slurm.conf
[ {is_first} = 0 ] || slurmctld -L {shared}/slurmctld.log
slurmd -N {name} -L {shared}/slurmd-{name}.log
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Two hosts with Slurm's and MUNGE's daemons; the controller is on the first."""
    with hosts(2, tmp_path_factory.mktemp("hosts")) as made:
        first, common = made[0], made[0].common
        nodes = "".join(NODE.format(host=host, cpus=os.cpu_count()) for host in made)
        (common / "slurm.conf").write_text(CONFIG.format(first=first) + nodes)
        (common / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # looks for none here
        (common / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in made)
        )
        (common / "munge.key").write_bytes(os.urandom(1024))
        (common / "munge.key").chmod(0o400)
        for host in made:
            begin = DAEMONS.format(shared=SHARED, name=host.name, is_first=int(host is first))
            started = host.run(begin)
            assert started.returncode == 0, started.stdout + started.stderr
        _await(lambda: _on(first, "sinfo -h -o %D:%T").stdout.strip() == "2:idle", 60)
        yield made


def _on(host: Host, command: str) -> subprocess.CompletedProcess[str]:
    """Of Slurm's, in the checkout."""
    settings = f"SLURM_CONF={SHARED}/slurm.conf SPATL_ENVIRONMENT={sys.prefix} PYTHONPATH={ROOT}"
    return host.run(f"cd {ROOT} && env {settings} {command}")


def _await(is_so: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.5)


def _submit(first: Host, name: str, *overrides: str) -> tuple[str, list[str]]:
    """The job's number, and the experiment that it runs."""
    arguments = ["demo", "engine.workers=4", f"results.folder={first.common / name}", *overrides]
    command = f"spatl run {' '.join(arguments)} engine.address=auto"
    log = first.common / f"{name}.log"
    sent = _on(first, f"sbatch --parsable --output={log} cluster/slurm.sh {command}")
    assert sent.returncode == 0, sent.stderr
    return sent.stdout.strip(), arguments


def _state(first: Host, job: str) -> str:
    told = _on(first, f"scontrol show job -o {job}").stdout
    return told.partition("JobState=")[2].partition(" ")[0]


def _log(first: Host, name: str) -> str:
    return (first.common / f"{name}.log").read_text()


def test_a_job_runs_across_its_nodes_to_the_bits_of_one_process(
    slurm: list[Host], tmp_path: Path
) -> None:
    first = slurm[0]
    job, arguments = _submit(first, "demo", "rounds=3")
    _await(lambda: _state(first, job) not in ("PENDING", "CONFIGURING", "RUNNING"), 240)
    assert _state(first, job) in ("COMPLETED", "COMPLETING"), _log(first, "demo")
    there = load_experiment(arguments[0], arguments[1:])
    (row,) = pd.read_parquet(Path(there.results.folder) / "runs").to_dict("records")
    assert all(host.name in row["hardware"] for host in slurm)
    own = [f"results.folder={tmp_path}", "engine.backend=serial", "engine.workers=null"]
    here = load_experiment(arguments[0], [*arguments[1:], *own])
    run(here)
    found, expected = (without_history(everything(each)) for each in (there, here))
    assert_identical(found, expected)


def test_the_end_of_its_time_closes_the_results(slurm: list[Host]) -> None:
    first = slurm[0]
    job, _ = _submit(first, "stopped", "rounds=500", "results.flush_seconds=0")
    _await(lambda: (first.common / "stopped" / "rounds").exists(), 240)
    _on(first, f"scancel --signal=TERM --batch {job}")  # what --signal=B:TERM@120 does
    _await(lambda: _state(first, job) not in ("RUNNING", "COMPLETING"), 120)
    (row,) = pd.read_parquet(first.common / "stopped" / "runs").to_dict("records")
    assert row["status"] == "interrupted", _log(first, "stopped")
    for host in slurm:
        _await(lambda host=host: not host.processes("raylet"), 60)


def test_a_job_without_a_command_says_so(slurm: list[Host]) -> None:
    told = _on(slurm[0], f"bash {ROOT / 'cluster' / 'slurm.sh'}")
    assert told.returncode == 2
    assert "a command must be given" in told.stderr
