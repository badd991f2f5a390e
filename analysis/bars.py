"""Pictures with a bar a method: bytes to the target accuracy, seconds by phase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.curves import COLOURS, MOST_CURVES, Curve
from analysis.formats import Spread
from analysis.metrics import GOALS, PHASES
from analysis.panels import by_setting, dress, escaped, grid_of, setting_title

MOST_BARS = 25
"""In a panel."""

OTHER = "other"
HATCHES = ("", "///", "...", "xx")
"""Phases are told apart in print, too."""

_BAR = 0.28  # inches
_FRAME = 1.2  # inches for title and axis
_ROOM = 1.4  # of the axis, for the texts at the bars' ends


def target_figure(table: pd.DataFrame, drawn: Sequence[Curve]) -> Figure:
    """Megabytes, up and down, to each setting's target; the bar says in how many seeds it was reached.

    Args:
        table: of `comparisons.targets`, with a column `setting`.
        drawn: gives the methods' colours.
    """
    is_crowded = table["method"].nunique() > MOST_CURVES
    colours = {} if is_crowded else {curve.label: curve.colour for curve in drawn}
    table = table[table["seeds"] > 0]
    groups = [(setting, _by_bytes(own)) for setting, own in table.groupby("setting", sort=False)]
    figure, axes = grid_of(6.6, [_FRAME + _BAR * min(len(own), MOST_BARS) for _, own in groups])
    for panel, (setting, own) in zip(axes, groups, strict=True):
        _draw_targets(panel, own.head(MOST_BARS), colours)
        title = _goal(own) + _left_out(len(own), "dearer")
        dress(panel, setting_title(str(setting), title))
        panel.grid(visible=False, axis="y")
    return figure


def _goal(own: pd.DataFrame) -> str:
    metric, _, value = own["target"].iloc[0].partition(" ")
    return f"Bytes until {GOALS.get(metric, metric)} {value}"


def _left_out(methods: int, how: str) -> str:
    more = methods - MOST_BARS
    return f"\n{more} {how} methods are not shown" if more > 0 else ""


def _by_bytes(own: pd.DataFrame) -> pd.DataFrame:
    """The cheapest first; those that never arrive last. Without methods of which no run has finished."""
    cost = own["MB_to_target"].map(_mean)
    return own.assign(cost=cost).sort_values("cost", na_position="last")


def _mean(value: object) -> float:
    return value.mean if isinstance(value, Spread) else np.nan


def _draw_targets(axes: Axes, own: pd.DataFrame, colours: dict[str, str]) -> None:
    places = np.arange(len(own))
    errors = own["MB_to_target"].map(lambda s: s.std if isinstance(s, Spread) else np.nan)
    cost = own["cost"].fillna(0.0).to_numpy()
    axes.barh(
        places,
        cost,
        xerr=[np.minimum(errors, cost), errors],
        color=[colours.get(label, COLOURS[0]) for label in own["method"]],
        height=0.7,
        ecolor="#404040",
        capsize=2,
    )
    ends = cost + errors.fillna(0.0).to_numpy()
    most = float(ends.max()) or 1.0
    for place, end, value, reached in zip(
        places, ends, own["MB_to_target"], own["reached"], strict=True
    ):
        text = f"{value} MB" if isinstance(value, Spread) else str(value)
        note = "" if _is_all(reached) else f" ({reached} seeds)"
        axes.text(end + 0.015 * most, float(place), text + note, va="center", fontsize=8)
    _name_bars(axes, list(own["method"]))
    axes.set_xlim(0, most * _ROOM)
    axes.set_xlabel("sent up and down (MB = 10$^6$ bytes)")


def _name_bars(axes: Axes, labels: Sequence[str]) -> None:
    """The first bar on top, and no room lost above and below."""
    axes.set_yticks(range(len(labels)), map(escaped, labels), fontsize=8)
    axes.set_ylim(len(labels) - 0.4, -0.6)


def _is_all(reached: str) -> bool:
    first, _, last = reached.partition(" of ")
    return first == last


def phases_figure(drawn: Sequence[Curve]) -> Figure:
    """Seconds of this machine by phase: means over rounds and seeds, a bar a method.

    Args:
        drawn: the methods; their rounds have the columns of `PHASES` and seconds_total.
    """
    settings = by_setting(drawn)
    heights = [_FRAME + _BAR * min(len(own), MOST_BARS) for own in settings.values()]
    figure, axes = grid_of(6.6, heights)
    for panel, (setting, own) in zip(axes, settings.items(), strict=True):
        table = phases({c.label: c.rounds for c in own})
        shown = table.sort_values("total").head(MOST_BARS)
        _draw_phases(panel, shown)
        title = "Seconds of a round" + _left_out(len(table), "slower")
        dress(panel, setting_title(setting, title))
        panel.grid(visible=False, axis="y")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def phases(rounds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean seconds of a round by phase, a row a method; what is in no phase is `other`."""
    names = {name: name.removeprefix("seconds_") for name in PHASES}
    means = {label: own[[*PHASES, "seconds_total"]].mean() for label, own in rounds.items()}
    table = pd.DataFrame(means).T.fillna(0.0).rename(columns={**names, "seconds_total": "total"})
    table[OTHER] = (table["total"] - table[list(names.values())].sum(axis=1)).clip(lower=0.0)
    return table[[*names.values(), OTHER, "total"]]


def _draw_phases(axes: Axes, table: pd.DataFrame) -> None:
    places, left = np.arange(len(table)), np.zeros(len(table))
    for index, phase in enumerate([c for c in table.columns if c != "total"]):
        colour, hatch = COLOURS[index], HATCHES[index]
        axes.barh(
            places,
            table[phase],
            left=left,
            height=0.7,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
            label=phase,
        )
        left = left + table[phase].to_numpy()
    _name_bars(axes, list(table.index))
    axes.set_xlabel("mean seconds of a round, on the machine that ran it")
