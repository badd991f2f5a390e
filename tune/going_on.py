"""Goes on with runs that were broken off, without a person who looks at each."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from spatl_ray import resume, run
from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment
from spatl_ray.engine.lock import alone
from spatl_ray.engine.summary import RunSummary
from spatl_ray.engine.trust import own_code
from spatl_ray.errors import EngineError, ResultsError
from spatl_ray.plugins import named_in
from spatl_ray.results.mappings import mapping_of
from spatl_ray.results.reader import read_run

PATIENCE = 30.0
"""Seconds in which a process whose search or sweep was killed lets go of its run."""


def enter(here: Path) -> None:
    """Take the folder in which a command was given as the current one: relative paths are meant from there.

    Processes of a cluster that was there already are in the folder in which it was started.

    Raises:
        EngineError: this node has no such folder.
    """
    try:
        os.chdir(here)
    except OSError as error:
        raise EngineError(
            f"the folder in which the command was given must be on every node, got {error}"
        ) from error


def begin(experiment: Experiment, callbacks: Sequence[Callback]) -> RunSummary:
    """`spatl_ray.run`, once a process that is just dying has let go of the run."""
    _wait(experiment)
    return run(experiment, callbacks=callbacks)


def go_on(experiment: Experiment, callbacks: Sequence[Callback], here: Path) -> RunSummary:
    """`spatl_ray.resume`, once it is known whose code the run names.

    Args:
        experiment: what was asked for now.
        callbacks: told about progress.
        here: the folder whose modules are the user's own.

    Raises:
        ConfigError: the recorded config names code that neither `experiment` names nor is of that folder.
        SpatlError: the run cannot go on.
    """
    folder, run_id = Path(experiment.results.folder).absolute(), experiment.run_id
    recorded = mapping_of(read_run(folder, run_id), run_id, "config")
    asked = set(named_in(experiment.model_dump(mode="json")))
    own_code(folder, run_id, here, trusted=set(named_in(recorded)) <= asked)
    _wait(experiment)
    return resume(folder, run_id, callbacks=callbacks)


def _wait(experiment: Experiment) -> None:
    """Wait until no process works on the run; whoever takes it then says if one still does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with alone(Path(experiment.results.folder).absolute(), experiment.run_id):
                return
        except ResultsError:
            time.sleep(0.2)
