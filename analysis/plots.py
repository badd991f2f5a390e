"""Pictures of a results folder: accuracy against rounds, and accuracy against bytes.

python analysis/plots.py RESULTS [--out FOLDER] [--metric COLUMN] [--target VALUE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.curves import RUN_COLUMNS, Curve, curves
from analysis.load import LoadError, Results, load
from analysis.tables import GLOBAL, OWN, summary, to_csv, to_markdown, to_text

TITLES = {OWN: "Clients' own test splits", GLOBAL: "Global test set"}

_ROUND_COLUMNS = ["run_id", "round", "bytes_up_cumulative", "bytes_down_cumulative"]
_MARKERS_A_LINE = 8
_LEGEND_ROW = 0.19  # inches a legend entry takes at its font size


def rounds_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Accuracy against communication rounds, one panel a metric."""
    figure, panels = _figure(drawn, metrics)
    for axes, metric in zip(panels, metrics, strict=True):
        for curve in drawn:
            _line(axes, curve, "round", metric)
        axes.set_xlabel("communication round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, panels)
    return figure


def bytes_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Accuracy against megabytes sent, up and down, all clients; one panel a metric.

    The axis is logarithmic where the values span more than a decade. A run without a byte is a
    horizontal line at its final value.
    """
    figure, panels = _figure(drawn, metrics)
    for axes, metric in zip(panels, metrics, strict=True):
        for curve in drawn:
            if curve.is_silent:
                _level(axes, curve, metric)
            else:
                _line(axes, curve, "megabytes", metric)
        axes.set_xlabel("sent up and down so far (MB = 10$^6$ bytes)")
        _scale_bytes(axes, drawn, metric)
    _legend(figure, panels)
    return figure


def save(
    results: Results, out: Path, kind: str = "png", metric: str = OWN, target: float | None = None
) -> tuple[pd.DataFrame, list[Path]]:
    """Write both pictures and the summary as Markdown and CSV.

    Returns:
        The summary, and the paths of what was written.

    Raises:
        LoadError: the folder cannot be read, or has no rounds or no such metric.
    """
    table = summary(results, target, metric)
    metrics = list(dict.fromkeys([OWN, GLOBAL, metric]))
    drawn = curves(
        load(results, "runs", RUN_COLUMNS), load(results, "rounds", [*_ROUND_COLUMNS, *metrics])
    )
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in (("accuracy_rounds", rounds_figure), ("accuracy_bytes", bytes_figure)):
        paths.append(out / f"{name}.{kind}")
        draw(drawn, metrics).savefig(paths[-1], dpi=150)
    for name, text in (("summary.md", to_markdown(table)), ("summary.csv", to_csv(table))):
        paths.append(out / name)
        paths[-1].write_text(text, encoding="utf-8")
    return table, paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what the command line names; 1 if it cannot be read or written."""
    options = _parser().parse_args(arguments)
    out = options.out or options.results[0] / "plots"
    try:
        table, paths = save(options.results, out, options.format, options.metric, options.target)
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.show_table:
        print(to_text(table))
    for path in paths:
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Draw accuracy against rounds and bytes.")
    parser.add_argument("results", type=Path, nargs="+", help="results folder, or several")
    parser.add_argument("--out", type=Path, help="folder to write to (default: RESULTS/plots)")
    parser.add_argument(
        "--metric", default=OWN, help=f"column of the table rounds for the target (default: {OWN})"
    )
    parser.add_argument(
        "--target", type=float, help="value to reach (default: the lowest of the runs' best)"
    )
    parser.add_argument("--format", choices=("png", "svg", "pdf"), default="png")
    parser.add_argument(
        "--show-table",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="print the summary of the runs (default: yes)",
    )
    return parser


def _figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> tuple[Figure, list[Axes]]:
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


def _line(axes: Axes, curve: Curve, x: str, metric: str) -> None:
    """The rounds in which the metric is known; nothing, if there are none."""
    known = curve.rounds.dropna(subset=[metric])
    if x == "megabytes":
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


def _level(axes: Axes, curve: Curve, metric: str) -> None:
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


def _scale_bytes(axes: Axes, drawn: Sequence[Curve], metric: str) -> None:
    """A logarithmic axis if several runs' bytes span more than a decade: factors are then seen."""
    known = [c.rounds.loc[c.rounds[metric].notna(), "megabytes"] for c in drawn]
    sent = [values[values > 0] for values in known if (values > 0).any()]
    if len(sent) > 1 and max(v.max() for v in sent) > 10 * min(v.min() for v in sent):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, outside of them; a panel without data says so."""
    entries: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
        if not handles:
            axes.text(0.5, 0.5, "not evaluated", ha="center", transform=axes.transAxes)
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside right upper",
            frameon=False,
            fontsize=8,
        )


if __name__ == "__main__":
    sys.exit(main())
