"""The parts of a picture: panels, lines, bands, the scale of an axis, one legend for all."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator, NullFormatter

from analysis.curves import Curve, best, look
from analysis.metrics import CLIENTS, OVER, TITLES, axis_label

MOST_ROWS = 5
"""Settings in one picture; more go on in the next one."""

OTHERS = "#b0b0b0"
"""Methods that are not told apart."""

_MARKERS_A_LINE = 8
_TITLE = 52  # characters that find room above a panel
_LEGEND_FONT = 8  # points
_LEGEND_HANDLE = 5.5  # font sizes: the line before a label, and the space around both
_LEGEND_LINE = 0.17  # inches
_LEGEND_EDGE = 0.2  # inches
POINTS = 72
"""An inch."""


@dataclass(frozen=True)
class Panel:
    """One metric in one setting.

    Attributes:
        curves: those that are told apart.
        others: the rest.
    """

    axes: Axes
    metric: str
    curves: Sequence[Curve]
    others: Sequence[Curve] = ()


def pages(drawn: Sequence[Curve], rows: int = MOST_ROWS) -> list[list[Curve]]:
    """The curves of at most `rows` settings at a time."""
    settings = list(dict.fromkeys(curve.setting for curve in drawn))
    return [
        [curve for curve in drawn if curve.setting in settings[i : i + rows]]
        for i in range(0, len(settings), rows)
    ]


def by_setting(drawn: Sequence[Curve]) -> dict[str, list[Curve]]:
    """The curves of each setting."""
    own: dict[str, list[Curve]] = {}
    for curve in drawn:
        own.setdefault(curve.setting, []).append(curve)
    return own


def make_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> tuple[Figure, list[Panel]]:
    """A figure with a row of panels a setting, a panel a metric; its legend will make it higher."""
    settings = by_setting(drawn)
    figure = Figure(figsize=(4.6 * len(metrics), 3.6 * len(settings)))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    grid = figure.subplots(len(settings), len(metrics), squeeze=False)
    panels = []
    chosen = [best(own, metrics[0]) for own in settings.values()]
    is_crowded = any(
        len(told) < len(own) for told, own in zip(chosen, settings.values(), strict=True)
    )
    looks = {c.label: look(i) for i, c in enumerate(_unique(chosen))} if is_crowded else {}
    for told, own, row in zip(chosen, settings.values(), grid, strict=True):
        others = [curve for curve in own if curve not in told]
        told = [curve.looking(*looks[curve.label]) if is_crowded else curve for curve in told]
        panels += [Panel(axes, m, told, others) for axes, m in zip(row, metrics, strict=True)]
    for panel in panels:
        title = _title(panel.metric, [*panel.curves, *panel.others])
        dress(panel.axes, setting_title(panel.curves[0].setting, title))
        panel.axes.set_ylabel(axis_label(panel.metric))
    return figure, panels


def _unique(chosen: Iterable[Sequence[Curve]]) -> list[Curve]:
    """The first curve of each method."""
    return list({curve.label: curve for told in chosen for curve in told}.values())


def grid_of(
    figure_width: float, heights: Sequence[float], columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure with panels of given heights below each other, in so many columns."""
    rows = [max(heights[i : i + columns]) for i in range(0, len(heights), columns)]
    figure = Figure(figsize=(figure_width, sum(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=rows).ravel()
    for unused in axes[len(heights) :]:
        unused.set_axis_off()
    return figure, list(axes[: len(heights)])


def setting_title(setting: str, title: str) -> str:
    """The setting, if there is more than one, above what is shown."""
    return f"{wrapped(setting)}\n{title}" if setting else title


def wrapped(text: str, width: int = _TITLE) -> str:
    """Names, escaped, in lines of at most so many characters."""
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, width)]
    return "\n".join(map(escaped, lines))


def escaped(text: str) -> str:
    """A name as matplotlib shows it letter by letter: without formulas between dollars.

    A legend leaves out what begins with an underscore, so a space stands before it.
    """
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def dress(axes: Axes, title: str) -> None:
    """Title and grid."""
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
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
    """The mean over seeds where the metric is known, and a band; nothing, if there are none.

    Against a cost, rounds before its first unit have no place on a logarithmic axis and are left out.
    """
    known = curve.points(x, metric)
    if x != "round":
        known = known[known["x"] > 0]
    if not len(known):
        return
    axes.plot(
        known["x"],
        known["mean"],
        label=escaped(curve.label),
        color=curve.colour,
        linestyle=curve.line,
        marker=curve.marker,
        markersize=4.5,
        markevery=max(1, -(-len(known) // _MARKERS_A_LINE)),
        linewidth=1.6,
    )
    if curve.seeds > 1:
        axes.fill_between(
            known["x"], known["low"], known["high"], color=curve.colour, alpha=0.16, linewidth=0
        )


def draw_others(panel: Panel, x: str) -> None:
    """The curves that are not told apart, behind the rest."""
    for curve in panel.others:
        known = curve.points(x, panel.metric)
        known = known[known["x"] > 0] if x != "round" else known
        panel.axes.plot(known["x"], known["mean"], color=OTHERS, linewidth=0.7, zorder=1)


def draw_level(axes: Axes, curve: Curve, metric: str) -> None:
    """A method without bytes, as the level it ended at."""
    final = curve.final(metric)
    if final == final:
        axes.axhline(
            final,
            label=escaped(f"{curve.label}: 0 bytes, final value"),
            color=curve.colour,
            linestyle=curve.line,
            linewidth=1.6,
        )


def scale(axes: Axes, values: Iterable[pd.Series]) -> None:
    """A logarithmic x axis if several methods' costs span more than a decade: factors are then seen.

    Args:
        axes: whose axis.
        values: of each method.
    """
    spent = [own[own > 0] for own in values if (own > 0).any()]
    if len(spent) < 2:
        return
    log_scale(axes, min(own.min() for own in spent), max(own.max() for own in spent))


def log_scale(axes: Axes, least: float, most: float) -> None:
    """A logarithmic x axis if it spans more than a decade, with labels that stand apart."""
    if least > 0 and (factor := most / least) > 10:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=_labelled(factor)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())


def costs(panel: Panel, x: str) -> Iterator[pd.Series]:
    """What each curve of a panel spends where its metric is known."""
    for curve in panel.curves:
        yield curve.rounds.loc[curve.rounds[panel.metric].notna(), x]


def _labelled(factor: float) -> tuple[float, ...]:
    """The multiples of a power of ten that have a label: as many as find room beside each other."""
    if factor <= 100:
        return (1, 2, 5)
    return (1, 3) if factor <= 1000 else (1,)


def notes_on(panels: Sequence[Panel]) -> list[str]:
    """What the legend has to say of bands and of curves that are not told apart."""
    seeds = {curve.seeds for panel in panels for curve in panel.curves} - {0}
    notes = []
    if max(seeds, default=1) > 1:
        several = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"{max(seeds)}"
        notes.append(f"mean of {several} seeds, band: standard deviation")
    if others := max((len(panel.others) for panel in panels), default=0):
        notes.append(f"grey: {others} other methods")
    return notes


def add_legend(figure: Figure, panels: Sequence[Panel], notes: Sequence[str] = ()) -> None:
    """One legend for all panels, below them, as many entries a line as there is room for.

    A panel without data says so.

    Args:
        figure: what the panels are in; it grows by the legend's height.
        panels: all of them.
        notes: lines of text below the entries.
    """
    entries: dict[str, Artist] = {}
    for panel in panels:
        axes = panel.axes
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
        if not handles:
            missing = "not evaluated" if "accuracy" in panel.metric else "not recorded"
            axes.text(0.5, 0.5, missing, ha="center", transform=axes.transAxes)
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
