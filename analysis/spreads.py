"""Pictures over clients: how their accuracies spread, and which classes they hold."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.clients import ACCURACY
from analysis.curves import Curve
from analysis.load import LoadError
from analysis.methods import settings_in_words
from analysis.metrics import OWN
from analysis.panels import (
    Panel,
    add_legend,
    escaped,
    make_figure,
    notes_on,
    setting_title,
    wrapped,
)

MOST_MAPS = 9
"""Partitions in one picture."""

_COLUMNS = 3
_TITLE = 40  # characters that find room above a map
_WRITTEN = 12  # clients and classes up to which samples are written into the cells


def clients_figure(drawn: Sequence[Curve], values: pd.DataFrame) -> Figure:
    """The share of clients at or below each accuracy, after the last evaluated round; seeds pooled.

    Args:
        drawn: the methods.
        values: of `clients.final`.
    """
    there = set(values["run_id"])
    known = [curve for curve in drawn if there & curve.runs.keys()]
    figure, panels = make_figure(known, [OWN])
    figure.set_size_inches(6.4, figure.get_size_inches()[1])
    for panel in panels:
        for curve in panel.curves:
            own = curve.own(values, ["client"])[ACCURACY].dropna()
            if len(own):
                _draw_steps(panel, curve, np.sort(own.to_numpy(np.float64)))
        title = setting_title(panel.curves[0].setting, "How accuracy spreads over clients")
        panel.axes.set_title(title, fontsize=10)
        panel.axes.set_xlabel("accuracy on the client's own test split (fraction)")
        panel.axes.set_ylabel("share of clients at or below")
    notes = [n for n in notes_on(panels) if n.startswith("grey")]
    add_legend(figure, panels, [n.replace("grey", "not shown") for n in notes])
    return figure


def _draw_steps(panel: Panel, curve: Curve, values: npt.NDArray[np.float64]) -> None:
    """The empirical distribution function."""
    shares = np.arange(1, len(values) + 1) / len(values)
    panel.axes.step(
        [values[0], *values],
        [0.0, *shares],
        where="post",
        label=escaped(curve.label),
        color=curve.colour,
        linestyle=curve.line,
        linewidth=1.6,
    )


def partition_figure(runs: pd.DataFrame) -> Figure:
    """Which classes clients hold: a heat map a partition and seed, a row a client.

    Args:
        runs: rows of table runs, with `methods.RUN_COLUMNS` and holdings; some must have them.
    """
    maps = partitions(runs)
    shown = list(maps.items())[:MOST_MAPS]
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.2 * columns + 0.8, 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    norm = PowerNorm(0.5, vmin=0, vmax=1)  # the root spreads small shares
    for axes, (title, counts) in zip(grid, shown, strict=False):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, norm=norm, cmap="Blues", aspect="auto", interpolation="nearest")
        axes.set_title(wrapped(title, _TITLE), fontsize=9)
        axes.set(xlabel="class", ylabel="client")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
        _write_counts(axes, counts, shares)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    ticks = [0, 0.05, 0.1, 0.25, 0.5, 1]
    label = "share of the client's samples"
    figure.colorbar(image, ax=list(grid), label=label, ticks=ticks, fraction=0.05, aspect=30)
    more = len(maps) - len(shown)
    if more:
        figure.suptitle(f"{more} more partitions are not shown", fontsize=10)
    return figure


def partitions(runs: pd.DataFrame) -> dict[str, npt.NDArray[np.int64]]:
    """Samples of each class that each of the first clients holds, by what the partition is called.

    One of all that hold the same.

    Raises:
        LoadError: holdings that are no table of numbers.
    """
    known = runs.dropna(subset=["holdings"]).copy()
    known["words"] = settings_in_words(known)
    found: dict[str, npt.NDArray[np.int64]] = {}
    for run in known.drop_duplicates(["dataset", "holdings"]).sort_values(
        ["seed", "words"]
    ).to_dict("records"):  # fmt: skip
        try:
            counts = np.array(json.loads(run["holdings"]), dtype=np.int64)
            clients, _ = counts.shape
        except (ValueError, TypeError) as error:
            raise LoadError(
                f"holdings of run {run['run_id']!r} must be a list of counts a client: {error}"
            ) from error
        first = f", the first {clients}" if clients < run["clients"] else ""
        title = f"{run['partition']}\nseed {run['seed']}, {run['clients']} clients{first}"
        while title in found:  # another data set, or subset of it
            title = f"{run['dataset']}: {title}" if run["dataset"] not in title else f"{title} "
        found[title] = counts
    return found


def _write_counts(
    axes: Axes, counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]
) -> None:
    """The samples of each cell that holds any, light on dark."""
    if max(counts.shape) > _WRITTEN or counts.max() >= 10_000:
        return
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.35 else "black"
            text = axes.text(column, row, f"{count}", ha="center", va="center", fontsize=6)
            text.set(color=colour, in_layout=False)
