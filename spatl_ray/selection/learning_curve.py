"""The learning curve of a pre-training: a Parquet file and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spatl_ray.errors import ResultsError
from spatl_ray.places import write_whole

WINDOW = 30
"""Updates of a moving mean: budgets differ from one update to the next."""

LINES = {
    "accuracy_own": "the agent's choice",
    "accuracy_mean": "mean of its episodes",
    "accuracy_best": "best of its episodes",
    "accuracy_equal_ratios": "equal ratios",
}


def save_curve(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write a row an update; the file appears whole or not at all.

    Args:
        rows: of `Pretrainer.curve`.
        path: of the Parquet file.

    Raises:
        ResultsError: the file cannot be written.
    """
    file = BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file)
    try:
        write_whole(path, file.getvalue())
    except OSError as error:
        raise ResultsError(f"the learning curve {path} cannot be written: {error}") from error


def draw_curve(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw accuracy without fine-tuning over updates, as means over the last WINDOW updates.

    The file appears whole or not at all.

    Args:
        rows: of `Pretrainer.curve`.
        path: of the picture (PNG).

    Raises:
        ResultsError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    updates = np.array([row["update"] for row in rows]) + 1
    for name, label in LINES.items():
        axes.plot(updates, moving_means([row[name] for row in rows], WINDOW), label=label)
    axes.set(xlabel="update", ylabel="accuracy without fine-tuning", ylim=(0, 1))
    axes.set_title(
        f"Pre-training of the selection agent (means over {WINDOW} updates)", fontsize=10
    )
    axes.legend(frameon=False, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=150)
    try:
        write_whole(path, file.getvalue())
    except OSError as error:
        raise ResultsError(f"the picture {path} cannot be written: {error}") from error


def moving_means(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and those before it, of at most `window`."""
    return [float(np.mean(values[max(0, i + 1 - window) : i + 1])) for i in range(len(values))]
