"""The parts of a picture: panels, lines, the scale of an axis, one legend for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator, NullFormatter

from analysis.curves import Curve
from analysis.tables import CLIENTS, GLOBAL, OVER, OWN, PANEL

TITLES = {
    OWN: "Clients' own test splits",
    PANEL: "Clients' own test splits",
    GLOBAL: "Global test set",
}

_MARKERS_A_LINE = 8
_LEGEND_FONT = 8  # points
_LEGEND_HANDLE = 5.5  # font sizes: the line before a label, and the space around both
_LEGEND_LINE = 0.17  # inches
_LEGEND_EDGE = 0.2  # inches
POINTS = 72
"""An inch."""


@dataclass(frozen=True)
class Panel:
    """One metric on one data set."""

    axes: Axes
    metric: str
    curves: Sequence[Curve]


def make_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> tuple[Figure, list[Panel]]:
    """A figure with a row of panels a data set, a panel a metric; its legend will make it higher."""
    datasets = list(dict.fromkeys(curve.dataset for curve in drawn))
    figure = Figure(figsize=(4.6 * len(metrics), 3.6 * len(datasets)))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    grid = figure.subplots(len(datasets), len(metrics), squeeze=False)
    panels = []
    for dataset, row in zip(datasets, grid, strict=True):
        own = [curve for curve in drawn if curve.dataset == dataset]
        panels += [Panel(axes, metric, own) for axes, metric in zip(row, metrics, strict=True)]
    for panel in panels:
        _prepare(panel, is_alone=len(datasets) == 1)
    return figure, panels


def _prepare(panel: Panel, is_alone: bool) -> None:
    """Titles and grid; the data set is named if it is not the only one."""
    axes, metric = panel.axes, panel.metric
    title = _title(metric, panel.curves)
    axes.set_title(title if is_alone else f"{panel.curves[0].dataset}: {title}", fontsize=10)
    axes.set_ylabel(metric if metric not in TITLES else "accuracy (fraction)")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _title(metric: str, drawn: Sequence[Curve]) -> str:
    """What the panel shows; of a mean over clients also over whom, and how many they are."""
    title = TITLES.get(metric, metric)
    if metric not in CLIENTS:
        return title
    known = pd.concat([curve.rounds[CLIENTS[metric]].dropna() for curve in drawn])
    return f"{title}\nmean over the {_count(known)}{OVER[metric]}"


def _count(clients: pd.Series) -> str:
    """How many clients are behind the points of a panel, if that is known."""
    if not len(clients):
        return ""
    low, high = int(clients.min()), int(clients.max())
    return f"{low} " if low == high else f"{low} to {high} "


def draw_line(axes: Axes, curve: Curve, x: str, metric: str) -> None:
    """The rounds in which the metric is known; nothing, if there are none.

    Against a cost, rounds before its first unit have no place on a logarithmic axis and are left out.
    """
    known = curve.rounds.dropna(subset=[metric])
    if x != "round":
        known = known[known[x] > 0]
    if len(known):
        axes.plot(
            known[x],
            known[metric],
            label=curve.label,
            color=curve.colour,
            linestyle=curve.line,
            marker=curve.marker,
            markersize=4.5,
            markevery=max(1, -(-len(known) // _MARKERS_A_LINE)),
            linewidth=1.6,
        )


def draw_level(axes: Axes, curve: Curve, metric: str) -> None:
    """A run without bytes, as the level it ended at."""
    known = curve.rounds[metric].dropna()
    if len(known):
        axes.axhline(
            known.iloc[-1],
            label=f"{curve.label}: 0 bytes, final value",
            color=curve.colour,
            linestyle=curve.line,
            linewidth=1.6,
        )


def scale(panel: Panel, x: str) -> None:
    """A logarithmic axis if several runs' costs span more than a decade: factors are then seen."""
    axes = panel.axes
    known = [c.rounds.loc[c.rounds[panel.metric].notna(), x] for c in panel.curves]
    spent = [values[values > 0] for values in known if (values > 0).any()]
    if len(spent) < 2:
        return
    factor = max(v.max() for v in spent) / min(v.min() for v in spent)
    if factor > 10:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=_labelled(factor)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())


def _labelled(factor: float) -> tuple[float, ...]:
    """The multiples of a power of ten that have a label: as many as find room beside each other."""
    if factor <= 100:
        return (1, 2, 5)
    return (1, 3) if factor <= 1000 else (1,)


def add_legend(figure: Figure, panels: Sequence[Panel], notes: Sequence[str] = ()) -> None:
    """One legend for all panels, below them, as many entries a line as there is room for.

    A panel without data says so.

    Args:
        figure: what the panels are in; it grows by the legend's height.
        panels: all of them.
        notes: lines of text below the entries.
    """
    entries: dict[str, Artist] = {}
    for axes in [panel.axes for panel in panels]:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
        if not handles:
            axes.text(0.5, 0.5, "not evaluated", ha="center", transform=axes.transAxes)
    entries |= {note: Line2D([], [], linestyle="none") for note in notes}
    if not entries:
        return
    width, height = figure.get_size_inches()
    columns = min(len(entries), max(1, int(width / _entry_width(entries))))
    lines = -(-len(entries) // columns)
    figure.set_size_inches(width, height + _LEGEND_EDGE + lines * _LEGEND_LINE)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=_LEGEND_FONT,
    )


def _entry_width(labels: Iterable[str]) -> float:
    """Inches that the widest entry takes: a handle, its label, and the space to the next one."""
    font = FontProperties(size=_LEGEND_FONT)
    widths = [TextPath((0, 0), label, prop=font).get_extents().width for label in labels if label]
    return (max(widths, default=0) + _LEGEND_HANDLE * _LEGEND_FONT) / POINTS
