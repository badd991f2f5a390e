"""What a run tells, through Python's logging."""

from __future__ import annotations

from spatl_ray.callbacks import Callback, Row
from spatl_ray.config import Experiment
from spatl_ray.logs import about, logger

log = logger(__name__)


class Logged(Callback):
    """Logs the run's begin, rounds, events and end; it is part of every run.

    Nothing is shown unless the caller's logging is set up for it. Events are warnings, the rest is info.
    """

    def run_started(self, experiment: Experiment, run_id: str) -> None:
        """Say which run it is."""
        log.info("begins or goes on: %s, %d rounds", experiment.name, experiment.rounds)

    def event(self, row: Row) -> None:
        """Say where it happened, and what."""
        with about(round=row["round"], client=row["client"]):
            log.warning("%s: %s", row["kind"], row["message"])

    def round_ended(self, row: Row) -> None:
        """Say that a round is written."""
        with about(round=row["round"]):
            log.info("ended with %s clients, %.3g s", row["participants"], row["seconds_total"])

    def run_ended(self, status: str) -> None:
        """Say how."""
        log.info("%s", status)
