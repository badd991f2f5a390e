"""Pictures of what selection keeps: ratios by layer and round, rewards, accuracy against FLOPs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.curves import COLOURS, MARKERS, Curve

REWARD = "selection_reward_mean"
FLOPS = "inference_flops_share_mean"
KEPT = "inference_local_test_accuracy_mean"
SELECTION_COLUMNS = [REWARD, FLOPS, KEPT]
LAYER_COLUMNS = ["run_id", "round", "client", "layer", "keep_ratio", "inference_keep_ratio"]
MOST_PANELS = 9
"""Runs in the picture of keep ratios."""

_COLUMNS = 3


def has(drawn: Sequence[Curve], column: str) -> bool:
    """Whether some run knows a column."""
    return any(bool(curve.rounds[column].notna().any()) for curve in drawn)


def keep_ratio_figure(drawn: Sequence[Curve], layers: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Keep ratio by layer and round, as a mean over clients: a panel a run.

    It is the ratio of what is kept for inference, or of what travels where nothing is removed.
    """
    algorithms = _algorithms(runs)
    names = {curve.run_id: decided_by(algorithms[curve.run_id]) for curve in drawn}
    tables = {f"{c.label}\n{names[c.run_id]}": keep_ratios(c.run_id, layers) for c in drawn}
    known = {label: table for label, table in tables.items() if len(table)}
    shown = list(known.items())[:MOST_PANELS]
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    height = max(2.2, 0.17 * max(len(table) for _, table in shown) + 1)
    figure = Figure(figsize=(4.6 * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (label, table) in zip(grid, shown, strict=False):
        image = axes.imshow(table, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_title(label, fontsize=9)
        axes.set_yticks(range(len(table)), table.index, fontsize=6)
        places = range(0, table.shape[1], max(1, table.shape[1] // 8))
        axes.set_xticks(places, [str(table.columns[i]) for i in places])
        axes.set_xlabel("communication round")
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    figure.colorbar(image, ax=list(grid), label="keep ratio, mean over clients")
    more = len(known) - len(shown)
    figure.suptitle("Share of a layer's channels that is kept" + _more(more), fontsize=10)
    return figure


def _more(count: int) -> str:
    return f" ({count} more runs are not shown)" if count else ""


def keep_ratios(run_id: str, layers: pd.DataFrame) -> pd.DataFrame:
    """Mean ratios of a run: layers in the network's order, a column a round; empty without any."""
    own = layers[layers["run_id"] == run_id]
    column = "inference_keep_ratio"
    if not own[column].notna().any():
        column = "keep_ratio"
    own = own.dropna(subset=[column])
    order = list(dict.fromkeys(own["layer"]))
    return own.pivot_table(index="layer", columns="round", values=column).reindex(order)


def reward_figure(drawn: Sequence[Curve]) -> Figure:
    """The agents' reward by round: accuracy of what is kept on the clients' validation samples."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for curve in drawn:
        known = curve.rounds.dropna(subset=[REWARD])
        if len(known):
            axes.plot(
                known["round"], known[REWARD], color=curve.colour, linestyle=curve.line,
                marker=curve.marker, markersize=4.5, linewidth=1.6, label=curve.label,
            )  # fmt: skip
    _dress(axes, "communication round", "accuracy (fraction)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Reward while heads are tuned\nmean over the clients that tune one", fontsize=10)
    return figure


def flops_figure(drawn: Sequence[Curve], runs: pd.DataFrame) -> Figure:
    """Accuracy of what is kept against its FLOPs, at the last evaluation: a line a criterion.

    Accuracy is without fine-tuning, on the clients' own test splits. Runs of one criterion and setting
    that differ in their seed only are one point: their mean, and the range of their accuracies.
    """
    points = _points(drawn, runs)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, (name, own) in enumerate(points.groupby("decided by", sort=True)):
        at = own.groupby("setting").agg(
            x=("flops", "mean"), y=("accuracy", "mean"), low=("accuracy", "min"),
            high=("accuracy", "max"),
        ).sort_values("x")  # fmt: skip
        axes.errorbar(
            at["x"], at["y"], yerr=[at["y"] - at["low"], at["high"] - at["y"]], label=str(name),
            color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)],
            markersize=5, linewidth=1.4, capsize=2,
        )  # fmt: skip
    _dress(axes, "FLOPs of inference, of the dense network's", "accuracy (fraction)")
    axes.set_title("What is kept, without fine-tuning\nclients' own test splits", fontsize=10)
    return figure


def _points(drawn: Sequence[Curve], runs: pd.DataFrame) -> pd.DataFrame:
    """Last known FLOPs and accuracy of each run that removes channels."""
    algorithms = _algorithms(runs)
    rows = []
    for curve in drawn:
        known = curve.rounds.dropna(subset=[FLOPS, KEPT])
        if len(known):
            algorithm = algorithms[curve.run_id]
            name, setting = decided_by(algorithm), json.dumps(algorithm, sort_keys=True)
            last = known.iloc[-1]
            rows.append((name, f"{curve.dataset} {setting}", last[FLOPS], last[KEPT]))
    return pd.DataFrame(rows, columns=["decided by", "setting", "flops", "accuracy"])


def _algorithms(runs: pd.DataFrame) -> Mapping[str, Mapping[str, object]]:
    """The section `algorithm` of each run's config."""
    configs = zip(runs["run_id"], runs["config"], strict=True)
    return {run_id: json.loads(config)["algorithm"] for run_id, config in configs}


def decided_by(algorithm: Mapping[str, object]) -> str:
    """What decides on the channels that are kept for inference, or that travel, from a run's config."""
    inference = algorithm.get("inference")
    if algorithm.get("agent"):
        return f"agent, {inference['criterion'] if isinstance(inference, dict) else 'l2'}"
    criterion = (
        inference["criterion"] if isinstance(inference, dict) else algorithm.get("criterion")
    )
    where = "over all layers" if algorithm.get("allocation") == "global" else "equal ratios"
    return f"{where}, {criterion}"


def _dress(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
