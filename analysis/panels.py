"""The parts of a picture: panels, lines, the scale of an axis, one legend for all."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from analysis.curves import Curve
from analysis.tables import GLOBAL, OWN

TITLES = {OWN: "Clients' own test splits", GLOBAL: "Global test set"}

_MARKERS_A_LINE = 8
_LEGEND_ROW = 0.19  # inches a legend entry takes at its font size


def make_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel a metric, high enough for the legend beside them."""
    height = max(3.8, 0.6 + _LEGEND_ROW * len(drawn))
    figure = Figure(figsize=(4.3 * len(metrics) + 2.2, height))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    panels = list(figure.subplots(1, len(metrics), squeeze=False)[0])
    for axes, metric in zip(panels, metrics, strict=True):
        axes.set_title(TITLES.get(metric, metric), fontsize=10)
        axes.set_ylabel(metric if metric not in TITLES else "accuracy (fraction)")
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


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


def scale(axes: Axes, drawn: Sequence[Curve], x: str, metric: str) -> None:
    """A logarithmic axis if several runs' costs span more than a decade: factors are then seen."""
    known = [c.rounds.loc[c.rounds[metric].notna(), x] for c in drawn]
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


def add_legend(figure: Figure, panels: Sequence[Axes], notes: Sequence[str] = ()) -> None:
    """One legend for all panels, outside of them; a panel without data says so.

    Args:
        figure: what the panels are in.
        panels: all of them.
        notes: lines of text below the entries.
    """
    entries: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
        if not handles:
            axes.text(0.5, 0.5, "not evaluated", ha="center", transform=axes.transAxes)
    entries |= {note: Line2D([], [], linestyle="none") for note in notes}
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside right upper",
            frameon=False,
            fontsize=8,
        )
