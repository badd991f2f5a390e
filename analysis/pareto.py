"""The Pareto front of a search: validation accuracy against bytes, a point a trial."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.curves import COLOURS, MARKERS
from analysis.formats import nothing
from analysis.methods import FINISHED, differing_options, options_of
from analysis.metrics import BYTES, MEGABYTE, VALIDATION, name_of
from analysis.panels import dress, escaped, log_scale, setting_title

_PANEL = (6.4, 4.2)  # inches


def trials(runs: pd.DataFrame, rounds: pd.DataFrame) -> pd.DataFrame:
    """The trials of searches: a row a trial_id with a run that was evaluated.

    Where a trial went on as a run under other settings, as PBT has it, it is the run that came furthest.

    Args:
        runs: rows of table runs, with sweep_id and trial_id.
        rounds: rows of table rounds, with validation accuracies and bytes.

    Returns:
        sweep_id, trial_id, run_id, algorithm, status, accuracy (on validation data, last evaluated
        round), megabytes (up and down, until then), and whether it is on its sweep's front.
    """
    own = runs.dropna(subset=["sweep_id", "trial_id"])
    known = rounds.dropna(subset=[VALIDATION]).sort_values("round")
    last = known.drop_duplicates("run_id", keep="last").assign(
        accuracy=lambda r: r[VALIDATION], megabytes=lambda r: r[BYTES].sum(axis=1) / MEGABYTE
    )
    columns = ["sweep_id", "trial_id", "run_id", "algorithm", "status"]
    table = own[columns].merge(last[["run_id", "round", "accuracy", "megabytes"]], on="run_id")
    table["is_done"] = table["status"] == FINISHED
    table = table.sort_values(["is_done", "round", "run_id"]).drop_duplicates(
        ["sweep_id", "trial_id"], keep="last"
    )
    table = table.drop(columns=["is_done", "round"]).sort_values("run_id", ignore_index=True)
    table["on_front"] = False
    for _, within in table.groupby("sweep_id"):
        table.loc[front(within).index, "on_front"] = True
    return table


def front_table(runs: pd.DataFrame, rounds: pd.DataFrame) -> pd.DataFrame:
    """The trials on each search's front, cheapest first, with the options in which trials differ.

    Args:
        runs, rounds: as for `trials`; runs with their configs, too.
    """
    table = trials(runs, rounds)
    on = table[table["on_front"]].sort_values(["sweep_id", "megabytes"])
    if not len(on):
        return nothing("the trials of a search")
    by_id = {run["run_id"]: options_of(run) for run in runs.to_dict("records")}
    differing = differing_options([by_id[run_id] for run_id in table["run_id"]])
    chosen = [{path: by_id[r].get(path, "absent") for path in differing} for r in on["run_id"]]
    shown = on[["sweep_id", "trial_id", "status", "accuracy", "megabytes"]].reset_index(drop=True)
    shown = shown.rename(columns={"accuracy": "validation_accuracy", "megabytes": "MB"})
    return pd.concat([shown, pd.DataFrame(chosen)], axis=1)


def front(points: pd.DataFrame) -> pd.DataFrame:
    """The points that none beats in both: no other has at least the accuracy for at most the bytes.

    In ascending order of bytes. Of equal points, all.
    """
    ordered = points.sort_values(["megabytes", "accuracy"], ascending=[True, False])
    best_of_fewer = (
        ordered.groupby("megabytes")["accuracy"]
        .max()
        .astype(float)
        .cummax()
        .shift()
        .fillna(-np.inf)
    )
    best_of_as_many = ordered.groupby("megabytes")["accuracy"].transform("max")
    beaten = ordered["accuracy"] <= ordered["megabytes"].map(best_of_fewer)
    return ordered[~beaten & (ordered["accuracy"] == best_of_as_many)]


def pareto_figure(table: pd.DataFrame) -> Figure:
    """The trials of each search and its front.

    Args:
        table: of `trials`, with a row at least.
    """
    sweeps = list(table.groupby("sweep_id"))
    width, height = _PANEL
    figure = Figure(figsize=(width, height * len(sweeps)), layout="constrained")
    grid = figure.subplots(len(sweeps), 1, squeeze=False).ravel()
    algorithms = sorted(set(table["algorithm"]))
    for axes, (sweep, own) in zip(grid, sweeps, strict=True):
        _draw(axes, own, algorithms)
        finished = int((own["status"] == FINISHED).sum())
        dress(axes, setting_title(str(sweep), f"{len(own)} trials, {finished} to the end"))
        axes.set_xlabel("sent up and down (MB = 10$^6$ bytes)")
        axes.set_ylabel("validation accuracy (fraction)")
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, frameon=False, fontsize=8)
    return figure


def _draw(axes: Axes, own: pd.DataFrame, algorithms: Sequence[str]) -> None:
    """Filled points ran to the end, open ones were stopped early; the front is a staircase."""
    on = own[own["on_front"]].sort_values("megabytes")
    axes.step(
        on["megabytes"], on["accuracy"], where="post", color="#404040", linewidth=1.2, label="front"
    )
    for algorithm, points in own.groupby("algorithm"):
        index = algorithms.index(str(algorithm))
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        for is_done, part in points.groupby(points["status"] == FINISHED):
            axes.scatter(
                part["megabytes"],
                part["accuracy"],
                s=30,
                marker=marker,
                facecolors=colour if is_done else "none",
                edgecolors=colour,
                label=escaped(name_of(str(algorithm))) + ("" if is_done else ", stopped early"),
                zorder=3,
            )
    log_scale(axes, own["megabytes"].min(), own["megabytes"].max())
