"""An earlier run, as its results tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatl_ray.config import Experiment
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.checkpoint import Checkpoint
from spatl_ray.errors import ResultsError
from spatl_ray.results.inventory import refuse_lost_rows
from spatl_ray.results.reader import read_run


def recorded(folder: Path, run_id: str) -> tuple[Experiment, Mapping[str, Any]]:
    """The experiment of a run, and its row of table `runs`.

    Args:
        folder: the results folder, wherever it lies now.
        run_id: of the run.

    Raises:
        ResultsError: there is no such run, or a file that decides its numbers has changed since.
    """
    row = read_run(folder, run_id)
    config = Experiment.model_validate_json(row["config"])
    results = config.results.model_copy(update={"folder": str(folder)})
    experiment = config.model_copy(update={"results": results})
    if experiment.run_id != run_id:
        raise ResultsError(
            f"run {run_id!r} must still be of its config, got one that is {experiment.run_id!r} "
            "now: a file that it names has changed"
        )
    return experiment, row


@dataclass(frozen=True)
class BrokenOff:
    """A run that is to go on.

    Attributes:
        run_id: its name.
        data_fingerprint: of the data that it used; None accepts others.
        checkpoint: to go on from; None begins again.
        faults: what is wrong with newer checkpoints.
        fingerprint: of the workers that it began with; None accepts others.
    """

    run_id: str
    data_fingerprint: str | None
    checkpoint: Checkpoint | None
    faults: Sequence[str] = ()
    fingerprint: str | None = None

    @property
    def first(self) -> int:
        """The first round to come."""
        return 0 if self.checkpoint is None else self.checkpoint.round + 1

    def check(self, experiment: Experiment, data: FederatedData) -> None:
        """Refuse to go on with something else.

        Raises:
            ResultsError: other data, a checkpoint of another run, or rows from before it are gone.
        """
        if self.checkpoint is not None and self.checkpoint.facts.get("run_id") != self.run_id:
            raise ResultsError(
                f"the checkpoint must be of run {self.run_id!r}, got one of "
                f"{self.checkpoint.facts.get('run_id')!r}"
            )
        if experiment.run_id != self.run_id:
            raise ResultsError(
                f"run {self.run_id!r} must go on with its own data, got those of run {experiment.run_id!r}"
            )
        if self.data_fingerprint not in (None, data.fingerprint):
            raise ResultsError(
                f"run {self.run_id!r} must go on with the data that it began with (fingerprint "
                f"{self.data_fingerprint}), got others ({data.fingerprint}); --force goes on anyway"
            )
        if self.checkpoint is not None:
            folder = Path(experiment.results.folder).absolute()
            refuse_lost_rows(folder, self.run_id, self.first, self.checkpoint.facts.get("rows", {}))
