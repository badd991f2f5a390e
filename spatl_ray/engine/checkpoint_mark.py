"""A mark in the results that a run has taken checkpoints, wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spatl_ray.addresses import working_folder
from spatl_ray.config import Experiment
from spatl_ray.engine.bookkeeping import bookkeeping
from spatl_ray.engine.checkpoint import Checkpoint
from spatl_ray.engine.folders import checkpoint_folder
from spatl_ray.errors import StateError


def mark_of(experiment: Experiment) -> Path:
    """The file that is there once a checkpoint was taken, until the run has finished."""
    return (
        bookkeeping(working_folder(experiment.results.folder), experiment.run_id) / "checkpointed"
    )


def refuse_restart(
    experiment: Experiment, checkpoint: Checkpoint | None, faults: Sequence[str]
) -> None:
    """A run that has taken checkpoints does not begin again without anybody having said so.

    Args:
        experiment: of the run.
        checkpoint: the one to go on from, or None.
        faults: what is wrong with others.

    Raises:
        StateError: they are gone, or none is whole.
    """
    if checkpoint is None and mark_of(experiment).exists():
        raise StateError(
            f"{checkpoint_folder(experiment)} must hold the checkpoints that run {experiment.run_id!r} has "
            f"taken, got {'; '.join(faults) or 'none'}: put them back, or begin with round 0 by --force"
        )
