"""A run as TensorBoard shows it: curves, histograms, the config and its hyperparameters."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from spatl_ray.addresses import working_folder
from spatl_ray.callbacks import Callback, Row
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError

WORDS = ("accuracy", "loss", "bytes", "simulated", "seconds")
"""A column belongs to the group of the first of these words in its name."""

COMPARED = (
    "panel_local_test_accuracy_mean",
    "local_test_accuracy_mean",
    "global_test_accuracy",
    "bytes_up_cumulative",
)
"""The columns that stand beside the hyperparameters."""

BINS = np.linspace(0.0, 1.0, 21)
"""The same twentieths in every round, so that histograms of accuracies compare."""


class TensorBoard(Callback):
    """Writes event files to RESULTS/tensorboard/run_id=RUN, emptied when the run starts.

    Scalars are the numbers of table `rounds` by round, as group/column, in 32-bit floats as
    TensorBoard has them; the tables hold them exactly. `clients/local_test_accuracy` is the histogram
    of the clients' accuracies on their own splits, in rounds with an evaluation.

    Args:
        experiment: the config.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    def __init__(self, experiment: Experiment) -> None:
        _check_installed()
        self._results = experiment.results
        self._writer: Any = None  # a SummaryWriter; torch types its file_writer as None
        self._end: Any = None

    def run_started(self, experiment: Experiment, run_id: str) -> None:
        """Begin the files with the config."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        folder = working_folder(self._results.folder) / "tensorboard" / f"run_id={run_id}"
        if folder.exists():
            shutil.rmtree(folder)
        self._writer = SummaryWriter(folder, flush_secs=self._results.flush_seconds)
        text = experiment.model_dump_json(indent=2)
        self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))
        decisive = experiment.model_dump(mode="json", exclude={"engine", "results"})
        compared = dict.fromkeys(map(_tag, COMPARED))
        about, start, self._end = hparams(dict(_flat(decisive)), compared)
        for summary in (about, start):
            self._writer.file_writer.add_summary(summary)

    def clients_ended(self, round_: int, rows: Sequence[Row]) -> None:
        """Show how the clients' own accuracies spread."""
        own = [row.get("local_test_accuracy") for row in rows]
        known = np.array([value for value in own if isinstance(value, float)])
        if self._writer and known.size:
            self._writer.add_histogram("clients/local_test_accuracy", known, round_, bins=BINS)

    def round_ended(self, row: Row) -> None:
        """Extend the curves."""
        for column, value in row.items():
            is_number = isinstance(value, int | float) and math.isfinite(value)
            if self._writer and is_number and column != "round":
                self._writer.add_scalar(_tag(column), value, row["round"])

    def run_ended(self, status: str) -> None:
        """Close the files; only a finished run counts as one."""
        if self._writer is None:
            return
        if status == "finished":
            self._writer.file_writer.add_summary(self._end)
        self._writer.close()
        self._writer = None


def _check_installed() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "results.loggers must name loggers whose packages are installed, got 'tensorboard' "
            f"({error}): pip install 'spatl_ray[tensorboard]'"
        ) from error


def _tag(column: str) -> str:
    """The column under its group; counts of clients and what else there is under "round"."""
    group = next((word for word in WORDS if word in column), "round")
    return f"{group}/{column}"


def _flat(
    tree: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, bool | int | float | str]]:
    """Dotted names and values; lists as text, without what is None."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif value is not None:
            yield f"{above}{name}", value if isinstance(value, int | float | str) else str(value)
