"""Pictures of what selection keeps: ratios by layer and round, rewards, accuracy against FLOPs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.curves import COLOURS, MARKERS, Curve
from analysis.formats import UNKNOWN
from analysis.lines import rounds_figure
from analysis.load import Results, each_run
from analysis.methods import config_of
from analysis.metrics import FLOPS, KEPT, REWARD
from analysis.panels import by_setting, dress, escaped, grid_of, setting_title, wrapped

LAYER_COLUMNS = ["round", "layer", "keep_ratio", "inference_keep_ratio"]
MOST_PANELS = 9
"""Methods in the picture of keep ratios."""

_COLUMNS = 3
_TITLE = 44  # characters that find room above a panel


def mean_ratios(results: Results) -> pd.DataFrame:
    """Keep ratios by run, round and layer, means over clients; layers in the network's order.

    Reads a run at a time: the table has a row a client and layer.
    """
    parts = []
    for run_id, rows in each_run(results, "layers", LAYER_COLUMNS):
        means = rows.group_by(["round", "layer"], use_threads=False).aggregate(
            [("keep_ratio", "mean"), ("inference_keep_ratio", "mean")]
        )
        means = means.rename_columns([n.removesuffix("_mean") for n in means.column_names])
        parts.append(means.append_column("run_id", pa.array([run_id] * len(means), pa.string())))
    frame: pd.DataFrame = pa.concat_tables(parts).to_pandas()
    return frame


def keep_ratio_figure(drawn: Sequence[Curve], layers: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Keep ratio by layer and round, as a mean over clients and seeds: a panel a method.

    It is the ratio of what is kept for inference, or of what travels where nothing is removed.

    Args:
        drawn: the methods; each has ratios.
        layers: of `mean_ratios`.
        runs: rows of table runs, with their configs.
    """
    algorithms = _algorithms(runs)
    shown = []
    for curve in drawn[:MOST_PANELS]:
        name = decided_by(algorithms[next(iter(curve.runs))])
        title = "\n".join([curve.setting, curve.label, name])
        shown.append((wrapped(title, _TITLE), keep_ratios(curve, layers)))
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    height = max(3.0, 0.17 * max(len(table) for _, table in shown) + 1)
    figure = Figure(figsize=(4.6 * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (label, table) in zip(grid, shown, strict=False):
        image = axes.imshow(table, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_title(label, fontsize=9)
        axes.set_yticks(range(len(table)), map(escaped, table.index), fontsize=6)
        places = range(0, table.shape[1], max(1, table.shape[1] // 8))
        axes.set_xticks(places, [str(table.columns[i]) for i in places])
        axes.set_xlabel("communication round (from 0)")
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    figure.colorbar(image, ax=list(grid), label="keep ratio, mean over clients")
    more = len(drawn) - len(shown)
    figure.suptitle("Share of a layer's channels that is kept" + _more(more), fontsize=10)
    return figure


def _more(count: int) -> str:
    return f" ({count} more methods are not shown)" if count else ""


def keep_ratios(curve: Curve, layers: pd.DataFrame) -> pd.DataFrame:
    """A method's mean ratios: layers in the network's order, a column a round; empty without any."""
    order = list(dict.fromkeys(layers.loc[layers["run_id"].isin(curve.runs.keys()), "layer"]))
    own = curve.own(layers[["run_id", *LAYER_COLUMNS]], ["layer", "round"])
    column = "inference_keep_ratio"
    if not own[column].notna().any():
        column = "keep_ratio"
    own = own.dropna(subset=[column])
    table = own.pivot_table(index="layer", columns="round", values=column)
    return table.reindex([layer for layer in order if layer in table.index])


def reward_figure(drawn: Sequence[Curve]) -> Figure:
    """The agents' reward by round: accuracy of what is kept on the clients' validation samples."""
    return rounds_figure(drawn, [REWARD])


def flops_figure(drawn: Sequence[Curve], runs: pd.DataFrame) -> Figure:
    """Accuracy of what is kept against its FLOPs, at the last evaluation: a line a criterion.

    Accuracy is without fine-tuning, on the clients' own test splits. Seeds of one criterion and options
    are one point: their mean, and the range of their accuracies. A panel a setting.
    """
    settings = by_setting(drawn)
    figure, grid = grid_of(6.4, [4.2] * len(settings))
    for axes, (setting, own) in zip(grid, settings.items(), strict=True):
        points = _points(own, runs)
        for index, (name, part) in enumerate(points.groupby("decided by", sort=True)):
            _draw_points(axes, part, str(name), index)
        title = "What is kept, without fine-tuning\nclients' own test splits"
        dress(axes, setting_title(setting, title))
        axes.set(xlabel="FLOPs of inference, of the dense network's", ylabel="accuracy (fraction)")
        axes.legend(frameon=False, fontsize=8)
    return figure


def _draw_points(axes: Axes, own: pd.DataFrame, name: str, index: int) -> None:
    at = own.groupby("options").agg(
        x=("flops", "mean"), y=("accuracy", "mean"), low=("accuracy", "min"), high=("accuracy", "max")
    ).sort_values("x")  # fmt: skip
    axes.errorbar(
        at["x"], at["y"], yerr=[at["y"] - at["low"], at["high"] - at["y"]], label=name,
        color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)],
        markersize=5, linewidth=1.4, capsize=2,
    )  # fmt: skip


def _points(drawn: Sequence[Curve], runs: pd.DataFrame) -> pd.DataFrame:
    """Last known FLOPs and accuracy of each seed that removes channels."""
    algorithms = _algorithms(runs)
    rows = []
    for curve in drawn:
        algorithm = algorithms[next(iter(curve.runs))]
        name, options = decided_by(algorithm), json.dumps(algorithm, sort_keys=True)
        last = curve.rounds.dropna(subset=[FLOPS, KEPT]).groupby("seed")[[FLOPS, KEPT]].last()
        rows += [(name, options, *seed) for seed in last.to_numpy()]
    return pd.DataFrame(rows, columns=["decided by", "options", "flops", "accuracy"])


def _algorithms(runs: pd.DataFrame) -> Mapping[str, Mapping[str, object]]:
    """The section `algorithm` of each run's config; nothing where it has none."""
    known = {run["run_id"]: config_of(run).get("algorithm") for run in runs.to_dict("records")}
    return {run_id: own if isinstance(own, dict) else {} for run_id, own in known.items()}


def decided_by(algorithm: Mapping[str, object]) -> str:
    """What decides on the channels that are kept for inference, or that travel, from a run's config."""
    inference = algorithm.get("inference")
    own = inference if isinstance(inference, dict) else {}
    if algorithm.get("agent"):
        return f"agent, {own.get('criterion', 'l2')}"
    criterion = own.get("criterion") or algorithm.get("criterion") or f"criterion {UNKNOWN}"
    where = "over all layers" if algorithm.get("allocation") == "global" else "equal ratios"
    return f"{where}, {criterion}"
