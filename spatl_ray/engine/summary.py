"""What a run leaves, in short."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spatl_ray.addresses import working_folder
from spatl_ray.engine.rows import Row


@dataclass(frozen=True)
class RunSummary:
    """What a run leaves.

    Attributes:
        run_id: its name in the results.
        results: their absolute folder, or their address.
        status: finished or interrupted.
        last_round: the last row of table `rounds`, empty if no round ended.
    """

    run_id: str
    results: str
    status: str
    last_round: Row

    @property
    def folder(self) -> Path:
        """The results folder; of results at an address the working copy."""
        return working_folder(self.results)
