"""Pictures of a results folder: accuracy against rounds, bytes and simulated seconds.

python analysis/plots.py RESULTS [--out FOLDER] [--metric COLUMN] [--target VALUE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.curves import RUN_COLUMNS, Curve, curves
from analysis.load import LoadError, Results, load
from analysis.panels import add_legend, draw_level, draw_line, make_figure, scale
from analysis.tables import GLOBAL, OWN, SIMULATED, summary, to_csv, to_markdown, to_text

_ROUND_COLUMNS = ["run_id", "round", "bytes_up_cumulative", "bytes_down_cumulative", SIMULATED]


def rounds_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Accuracy against communication rounds, one panel a metric."""
    figure, panels = make_figure(drawn, metrics)
    for axes, metric in zip(panels, metrics, strict=True):
        for curve in drawn:
            draw_line(axes, curve, "round", metric)
        axes.set_xlabel("communication round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(figure, panels)
    return figure


def bytes_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Accuracy against megabytes sent, up and down, all clients; one panel a metric.

    The axis is logarithmic where the values span more than a decade. A run without a byte is a
    horizontal line at its final value.
    """
    figure, panels = make_figure(drawn, metrics)
    for axes, metric in zip(panels, metrics, strict=True):
        for curve in drawn:
            if curve.is_silent:
                draw_level(axes, curve, metric)
            else:
                draw_line(axes, curve, "megabytes", metric)
        axes.set_xlabel("sent up and down so far (MB = 10$^6$ bytes)")
        scale(axes, drawn, "megabytes", metric)
    add_legend(figure, panels)
    return figure


def simulated_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Accuracy against simulated seconds on the clients' devices; one panel a metric.

    The axis is logarithmic where the values span more than a decade. A run without devices has no
    such time: it is named in the legend, and not drawn.
    """
    figure, panels = make_figure(drawn, metrics)
    timed = [curve for curve in drawn if curve.is_timed]
    for axes, metric in zip(panels, metrics, strict=True):
        for curve in timed:
            draw_line(axes, curve, SIMULATED, metric)
        axes.set_xlabel("simulated time so far (s)")
        scale(axes, timed, SIMULATED, metric)
    others = [curve.label for curve in drawn if not curve.is_timed]
    add_legend(figure, panels, [f"{label}: no simulated time" for label in others])
    return figure


def save(
    results: Results, out: Path, kind: str = "png", metric: str = OWN, target: float | None = None
) -> tuple[pd.DataFrame, list[Path]]:
    """Write the pictures and the summary as Markdown and CSV.

    There is a picture of simulated time if a run has devices.

    Returns:
        The summary, and the paths of what was written.

    Raises:
        LoadError: the folder cannot be read, or has no rounds or no such metric.
    """
    table = summary(results, target, metric)
    metrics = list(dict.fromkeys([OWN, GLOBAL, metric]))
    columns = list(dict.fromkeys([*_ROUND_COLUMNS, *metrics]))
    drawn = curves(load(results, "runs", RUN_COLUMNS), load(results, "rounds", columns))
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    pictures = {"accuracy_rounds": rounds_figure, "accuracy_bytes": bytes_figure}
    if any(curve.is_timed for curve in drawn):
        pictures["accuracy_simulated_seconds"] = simulated_figure
    for name, draw in pictures.items():
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
    parser = argparse.ArgumentParser(
        description="Draw accuracy against rounds, bytes and simulated seconds."
    )
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


if __name__ == "__main__":
    sys.exit(main())
