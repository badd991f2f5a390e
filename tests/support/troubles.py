"""Clients that break in every way that a process can."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spatl_ray import config
from spatl_ray.algorithms.base import ClientView
from spatl_ray.algorithms.fedavg import FedAvg
from spatl_ray.training.local import LocalTask


class Troubled(FedAvg):
    """FedAvg whose clients do what their option says in round 1, as often as `times` allows.

    Each time leaves a file in the folder `log`: processes that die tell no other tale.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        options = dict(options)
        self.log, self.times = Path(options.pop("log")), options.pop("times", 99)
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
        return before < self.times

    def fail(self) -> None:
        raise RuntimeError("the client broke")

    def die(self) -> None:
        os._exit(1)

    def sleep(self) -> None:
        time.sleep(600)

    def hang(self) -> None:
        """Inside C, where no exception gets in."""
        ctypes.PyDLL(None).system(b"exec sleep 30")
