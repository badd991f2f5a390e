"""Clients that break in every way that a process can."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spatl_ray import config
from spatl_ray.algorithms.base import ClientView
from spatl_ray.algorithms.fedavg import FedAvg
from spatl_ray.training.local import LocalTask

PIECE = 2**24
"""Bytes that are asked for at once."""


def fill(pieces: int) -> None:
    """Ask for memory and write to it, little by little."""
    held = []
    for _ in range(pieces):
        held.append(b"1" * PIECE)
        time.sleep(0.01)
    raise RuntimeError(f"nobody minded {len(held) * PIECE:,} bytes")


class Troubled(FedAvg):
    """FedAvg whose clients do what their option says in round 1, `times` times, but the first `after` ones.

    Each time leaves a file in the folder `log`: processes that die tell no other tale. `cgroup` is what
    those enter that `exhaust` its memory.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        options = dict(options)
        self.log, self.times = Path(options.pop("log")), options.pop("times", 99)
        self.after = options.pop("after", 0)
        self.cgroup = options.pop("cgroup", "")
        self.what = options
        super().__init__(config.FedAvg())

    def tasks(self, view: ClientView) -> Sequence[LocalTask]:
        what = self.what.get(str(view.client))
        if view.round == 1 and what is not None and self._again(view.client):
            getattr(self, what)()
        return super().tasks(view)

    def _again(self, client: int) -> bool:
        before = len(list(self.log.glob(f"{client}-*")))
        (self.log / f"{client}-{before}").touch()
        return self.after <= before < self.after + self.times

    def fail(self) -> None:
        raise RuntimeError("the client broke")

    def die(self) -> None:
        os._exit(1)

    def sleep(self) -> None:
        time.sleep(600)

    def hang(self) -> None:
        """Inside C, where no exception gets in."""
        ctypes.PyDLL(None).system(b"exec sleep 30")

    def exhaust(self) -> None:
        """Until the kernel kills this process, and no other: what a cgroup may have is much less."""
        (Path(self.cgroup) / "cgroup.procs").write_text(str(os.getpid()))
        fill(64)

    def hoard(self) -> None:
        """Until whoever watches the machine's memory minds: at most 5 GiB."""
        fill(320)

    def starve(self) -> None:
        """As a machine does that has no more memory to give."""
        self._starve(lambda: b"1" * PIECE)

    def starve_torch(self) -> None:
        """The same where tensors are made."""
        self._starve(lambda: torch.ones(PIECE // 4))

    def _starve(self, piece: Callable[[], object]) -> None:
        limits = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(
            resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * PIECE, limits[1])
        )
        try:
            held = [piece() for _ in range(64)]
            raise AssertionError(f"there was memory for {len(held)} pieces")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
