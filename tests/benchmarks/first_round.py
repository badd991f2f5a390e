"""A logger that notes when the first round began, in the file of FIRST_ROUND."""

from __future__ import annotations

import os
import time
from pathlib import Path

from spatl_ray.callbacks import Callback


class FirstRound(Callback):
    """Writes the time at which rounds begin."""

    def __init__(self, experiment: object) -> None:
        pass

    def run_started(self, experiment: object, run_id: str) -> None:
        Path(os.environ["FIRST_ROUND"]).write_text(repr(time.time()))
