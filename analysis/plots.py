"""Pictures of a results folder: accuracy against rounds, bytes, simulated seconds and FLOPs; selection.

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
from analysis.load import LoadError, Results, holds, load
from analysis.panels import add_legend, draw_level, draw_line, make_figure, scale
from analysis.selection import (
    FLOPS,
    KEPT,
    LAYER_COLUMNS,
    REWARD,
    SELECTION_COLUMNS,
    flops_figure,
    has,
    keep_ratio_figure,
    reward_figure,
)
from analysis.tables import (
    CLIENTS,
    GLOBAL,
    OWN,
    PANEL,
    SIMULATED,
    own_split,
    summary,
    to_csv,
    to_markdown,
    to_text,
)

_ACCURACIES = [OWN, PANEL, GLOBAL, *CLIENTS.values()]
_BYTES = ["bytes_up_cumulative", "bytes_down_cumulative"]
_ROUND_COLUMNS = ["run_id", "round", *_BYTES, SIMULATED, *SELECTION_COLUMNS, *_ACCURACIES]


def rounds_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Accuracy against communication rounds: a row a data set, a panel a metric."""
    figure, panels = make_figure(drawn, metrics)
    for panel in panels:
        for curve in panel.curves:
            draw_line(panel.axes, curve, "round", panel.metric)
        panel.axes.set_xlabel("communication round")
        panel.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(figure, panels)
    return figure


def bytes_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Accuracy against megabytes sent, up and down, all clients: a row a data set, a panel a metric.

    The axis is logarithmic where the values span more than a decade. A run without a byte is a
    horizontal line at its final value.
    """
    figure, panels = make_figure(drawn, metrics)
    for panel in panels:
        for curve in panel.curves:
            if curve.is_silent:
                draw_level(panel.axes, curve, panel.metric)
            else:
                draw_line(panel.axes, curve, "megabytes", panel.metric)
        panel.axes.set_xlabel("sent up and down so far (MB = 10$^6$ bytes)")
        scale(panel, "megabytes")
    add_legend(figure, panels)
    return figure


def simulated_figure(drawn: Sequence[Curve], metrics: Sequence[str]) -> Figure:
    """Accuracy against simulated seconds on the clients' devices: a row a data set, a panel a metric.

    The axis is logarithmic where the values span more than a decade. A run without devices has no
    such time: it is named in the legend, and not drawn.
    """
    timed = [curve for curve in drawn if curve.is_timed]
    figure, panels = make_figure(timed, metrics)
    for panel in panels:
        for curve in panel.curves:
            draw_line(panel.axes, curve, SIMULATED, panel.metric)
        panel.axes.set_xlabel("simulated time so far (s)")
        scale(panel, SIMULATED)
    others = dict.fromkeys(curve.label for curve in drawn if not curve.is_timed)
    add_legend(figure, panels, [f"{label}: no simulated time" for label in others])
    return figure


def save(
    results: Results,
    out: Path,
    kind: str = "png",
    metric: str | None = None,
    target: float | None = None,
) -> tuple[pd.DataFrame, list[Path]]:
    """Write the pictures and the summary as Markdown and CSV.

    There is a picture of simulated time if a run has devices, and there are pictures of selection if a
    run selects. Own-split accuracies are those of
    `own_split`.

    Returns:
        The summary, and the paths of what was written.

    Raises:
        LoadError: the folder cannot be read, or has no rounds or no such metric.
    """
    table = summary(results, target, metric)
    columns = list(dict.fromkeys([*_ROUND_COLUMNS, *([metric] if metric else [])]))
    rounds = load(results, "rounds", columns)
    own = own_split(rounds)
    metrics = list(dict.fromkeys([own, GLOBAL, metric or own]))
    drawn = curves(load(results, "runs", RUN_COLUMNS), rounds)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    pictures = {"accuracy_rounds": rounds_figure, "accuracy_bytes": bytes_figure}
    if any(curve.is_timed for curve in drawn):
        pictures["accuracy_simulated_seconds"] = simulated_figure
    figures = {name: draw(drawn, metrics) for name, draw in pictures.items()}
    figures |= _selection_figures(results, drawn)
    for name, figure in figures.items():
        paths.append(out / f"{name}.{kind}")
        figure.savefig(paths[-1], dpi=150)
    for name, text in (("summary.md", to_markdown(table)), ("summary.csv", to_csv(table))):
        paths.append(out / name)
        paths[-1].write_text(text, encoding="utf-8")
    return table, paths


def _selection_figures(results: Results, drawn: Sequence[Curve]) -> dict[str, Figure]:
    """Pictures of what selection keeps, for runs in which it does."""
    figures = {}
    runs = load(results, "runs", ["run_id", "config"])
    if has(drawn, FLOPS) and has(drawn, KEPT):
        figures["accuracy_flops"] = flops_figure(drawn, runs)
    if holds(results, "layers"):
        layers = load(results, "layers", LAYER_COLUMNS)
        selecting = set(layers.loc[layers["keep_ratio"].lt(1), "run_id"])
        if own := [curve for curve in drawn if curve.run_id in selecting]:
            figures["keep_ratios"] = keep_ratio_figure(own, layers, runs)
    if has(drawn, REWARD):
        figures["selection_reward"] = reward_figure(drawn)
    return figures


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
        description="Draw accuracy against rounds, bytes, simulated seconds and FLOPs, and what is kept."
    )
    parser.add_argument("results", type=Path, nargs="+", help="results folder, or several")
    parser.add_argument("--out", type=Path, help="folder to write to (default: RESULTS/plots)")
    parser.add_argument(
        "--metric",
        help=f"column of the table rounds for the target (default: {PANEL}, or {OWN} where a run "
        "lacks it)",
    )
    parser.add_argument(
        "--target",
        type=float,
        help="value to reach, of a loss from above (default: the worst of the runs' best)",
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
