"""Hosts of our own on one machine: each with its own network, processes, files and SSH server.

A host is a network namespace on a bridge, with namespaces of its own for mounts, processes and name, in
which an SSH server is the first process. /root is an overlay over the machine's, /tmp and /dev/shm are
the host's own, and one folder is shared by all hosts, where it lies here and as /srv/spatl. Needs root, and
Debian's iproute2, openssh-server and rsync.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SHARED = Path("/srv/spatl")
NEEDED = ("ip", "unshare", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd")
BRIDGE = "spatl0"
NETWORK = "10.77.3"

START = """
set -eu
hostname {name}
mount -t proc proc /proc
mkdir -p {own}/upper {own}/work {own}/tmp {shared}
mount -t overlay overlay -o lowerdir=/root,upperdir={own}/upper,workdir={own}/work /root
mount --bind {common} {shared}
mount --bind {own}/tmp /tmp
mkdir -p {common}
mount --bind {shared} {common}
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
exec /usr/sbin/sshd -D -e -f {shared}/sshd_config
"""

SSHD = """
Port 22
HostKey {shared}/hostkey
AuthorizedKeysFile {shared}/key.pub
StrictModes no
PermitRootLogin yes
UsePAM no
PasswordAuthentication no
"""


def missing() -> str | None:
    """What there would have to be, or None."""
    if os.geteuid() != 0:
        return "root"
    return next((tool for tool in NEEDED if not shutil.which(tool)), None)


@dataclass(frozen=True)
class Host:
    """One of them.

    Attributes:
        number: from 2 on; the last part of its address.
        common: the folder that is shared.
    """

    number: int
    common: Path

    @property
    def name(self) -> str:
        """Of its network namespace, and its own."""
        return f"spatl{self.number}"

    @property
    def address(self) -> str:
        """On the bridge."""
        return f"{NETWORK}.{self.number}"

    def run(self, command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command of a shell there, over SSH."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        options += ["-o", "LogLevel=ERROR", "-i", str(self.common / "key")]
        return subprocess.run(
            ["ssh", *options, f"root@{self.address}", command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def processes(self, what: str) -> list[str]:
        """Command lines there that contain a text."""
        told = self.run("ps -eo args")
        assert told.returncode == 0, told.stderr
        lines = told.stdout.splitlines()
        return [line for line in lines if what in line and "ps -eo" not in line]

    def cut(self, is_cut: bool = True) -> None:
        """Take its link to the bridge away, or give it back."""
        _do(f"ip link set {self.name} {'down' if is_cut else 'up'}")


@contextmanager
def hosts(count: int, folder: Path) -> Iterator[list[Host]]:
    """So many hosts with running SSH servers, which end with all that they run.

    Args:
        count: how many.
        folder: holds their files; `common` is what they share.
    """
    common = folder / "common"
    common.mkdir(parents=True)
    for key in ("key", "hostkey"):
        _do(f"ssh-keygen -q -t ed25519 -N '' -f {common / key}")
    (common / "sshd_config").write_text(SSHD.format(shared=SHARED))
    made = [Host(number, common) for number in range(2, 2 + count)]
    _remove(made)  # of a test that was killed
    try:
        _do(f"ip link add {BRIDGE} type bridge")
        _do(f"ip addr add {NETWORK}.1/24 dev {BRIDGE}")
        _do(f"ip link set {BRIDGE} up")
        for host in made:
            _start(host, folder / host.name)
        for host in made:
            _await_ssh(host)
        yield made
    finally:
        _remove(made)


def _start(host: Host, own: Path) -> None:
    name = host.name
    own.mkdir()
    _do(f"ip netns add {name}")
    _do(f"ip link add {name} type veth peer name eth0 netns {name}")
    _do(f"ip link set {name} master {BRIDGE} up")
    _do(f"ip -n {name} addr add {host.address}/24 dev eth0")
    _do(f"ip -n {name} link set eth0 up")
    _do(f"ip -n {name} link set lo up")
    _do(f"ip -n {name} route add default via {NETWORK}.1")  # by which Ray finds the host's address
    script = START.format(name=name, own=own, common=host.common, shared=SHARED)
    namespaces = ["--mount", "--pid", "--fork", "--uts", "--ipc", "--kill-child"]
    with open(own / "log", "w") as log:
        subprocess.Popen(
            ["ip", "netns", "exec", name, "unshare", *namespaces, "bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _await_ssh(host: Host) -> None:
    until = time.monotonic() + 20
    while host.run("true").returncode:
        assert time.monotonic() < until, f"no SSH server on {host.name}"
        time.sleep(0.2)


def _remove(made: Sequence[Host]) -> None:
    """All of them, with every process in their networks."""
    for host in made:
        pids = subprocess.run(
            ["ip", "netns", "pids", host.name], capture_output=True, text=True, check=False
        )
        for pid in pids.stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
    for host in made:
        for what in (["link", "del", host.name], ["netns", "del", host.name]):
            subprocess.run(["ip", *what], capture_output=True, check=False)
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def _do(command: str) -> None:
    subprocess.run(command, shell=True, check=True, capture_output=True)
