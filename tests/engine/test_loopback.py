"""A Ray that a run starts can be reached from this machine only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.ray]

RUN = """
import json, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from small_runs import small
from test_loopback import listening
from spatl_ray import Callback, run


class Look(Callback):
    def round_ended(self, row):
        Path({out!r}).write_text(json.dumps(listening()))


run(small(Path({folder!r}), engine={{"workers": 1}}, rounds=1), callbacks=[Look()])
"""
LOOPBACK = ("0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF0000" + "0100007F")
"""127.0.0.1, ::1 and 127.0.0.1 as an address of IPv6, as the kernel writes them."""
LISTENS = "0A"


def _children(pid: str) -> list[str]:
    """Of a process, and theirs."""
    try:
        own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # It has ended.
        return []
    return own + [below for child in own for below in _children(child)]


def _inodes(pid: str) -> set[str]:
    """Of the sockets that a process has open."""
    try:
        links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def listening() -> list[str]:
    """Address and port of all sockets on which this process and those that it started wait for others."""
    family = [str(os.getpid()), *_children(str(os.getpid()))]
    inodes = set[str]().union(*map(_inodes, family))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *more = line.split()
            if state == LISTENS and more[5] in inodes:
                found.append(local)
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no table of sockets here")
def test_nothing_listens_to_other_machines(tmp_path: Path) -> None:
    out = tmp_path / "sockets.json"
    paths = [str(Path(__file__).parent), *sys.path]
    code = RUN.format(paths=paths, out=str(out), folder=str(tmp_path / "results"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_ADDRESS")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    found = json.loads(out.read_text())
    assert len(found) > 4, "Ray's own servers and its workers"
    assert [each for each in found if not each.startswith(LOOPBACK)] == []
