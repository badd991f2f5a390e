"""Pictures with a line a method: accuracy against rounds, bytes and simulated seconds; client drift."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.curves import Curve
from analysis.metrics import CONTROL_NORM, COSINE, SIMULATED
from analysis.panels import (
    add_legend,
    costs,
    draw_level,
    draw_line,
    draw_others,
    escaped,
    make_figure,
    notes_on,
    scale,
)


def rounds_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Metrics against communication rounds: a row a setting, a panel a metric."""
    figure, panels = make_figure(drawn, metrics)
    for panel in panels:
        draw_others(panel, "round")
        for curve in panel.curves:
            draw_line(panel.axes, curve, "round", panel.metric)
        panel.axes.set_xlabel("communication round (from 0)")
        panel.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(figure, panels, notes_on(panels))
    return figure


def bytes_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Metrics against megabytes sent, up and down, all clients: a row a setting, a panel a metric.

    The axis is logarithmic where the values span more than a decade. A method without a byte is a
    horizontal line at its final value.
    """
    figure, panels = make_figure(drawn, metrics)
    for panel in panels:
        draw_others(panel, "megabytes")
        for curve in panel.curves:
            if curve.is_silent:
                draw_level(panel.axes, curve, panel.metric)
            else:
                draw_line(panel.axes, curve, "megabytes", panel.metric)
        panel.axes.set_xlabel("sent up and down so far (MB = 10$^6$ bytes)")
        scale(panel.axes, costs(panel, "megabytes"))
    add_legend(figure, panels, notes_on(panels))
    return figure


def simulated_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Metrics against simulated seconds on the clients' devices: a row a setting, a panel a metric.

    The axis is logarithmic where the values span more than a decade. A method without devices has no
    such time: it is named in the legend, and not drawn.
    """
    timed = [curve for curve in drawn if curve.is_timed]
    figure, panels = make_figure(timed, metrics)
    for panel in panels:
        draw_others(panel, SIMULATED)
        for curve in panel.curves:
            draw_line(panel.axes, curve, SIMULATED, panel.metric)
        panel.axes.set_xlabel("simulated time so far (s)")
        scale(panel.axes, costs(panel, SIMULATED))
    others = dict.fromkeys(curve.label for curve in drawn if not curve.is_timed)
    notes = [*notes_on(panels), *(escaped(f"{label}: no simulated time") for label in others)]
    add_legend(figure, panels, notes)
    return figure


def drift_figure(drawn: Sequence[Curve]) -> Figure:
    """How far clients pull apart: cosine of their updates, and norm of the server's control variate.

    The cosine is the mean over clients of that with the sum of all their updates, weighted by length:
    1 if all pull the same way, near 1 / sqrt(cohort) if they are unrelated.
    """
    return rounds_figure(drawn, [COSINE, CONTROL_NORM])
