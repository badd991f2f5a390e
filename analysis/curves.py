"""How each run is drawn: label, colour, line and marker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.tables import MEGABYTE, SIMULATED

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito, Color Universal Design, 2008; without its yellow, too pale for a line on white."""

Line = str | tuple[int, tuple[float, ...]]
LINES: tuple[Line, ...] = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
NAMES = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "fednova": "FedNova",
    "fedper": "FedPer",
    "scaffold": "SCAFFOLD",
    "spatl": "SPATL",
    "local_only": "Local only",
}

_FIELDS = ("partition", "model", "seed")
RUN_COLUMNS = ["run_id", "algorithm", "status", "dataset", *_FIELDS]


@dataclass(frozen=True)
class Curve:
    """One run as it is drawn.

    Attributes:
        run_id: of the run.
        dataset: runs of one share their panels.
        rounds: its rounds in order, with a column `megabytes`: sent up and down so far.
    """

    run_id: str
    label: str
    dataset: str
    colour: str
    line: Line
    marker: str
    rounds: pd.DataFrame

    @property
    def is_silent(self) -> bool:
        """Whether not a byte travelled."""
        return not (self.rounds["megabytes"] > 0).any()

    @property
    def is_timed(self) -> bool:
        """Whether its clients have devices, so that its time there is known."""
        return bool(self.rounds[SIMULATED].notna().any())


def curves(runs: pd.DataFrame, rounds: pd.DataFrame) -> list[Curve]:
    """One curve a run that has rounds: runs of one algorithm share a colour while colours last.

    Runs of one label, on several data sets, look the same.
    """
    has_rounds = runs["run_id"].isin(set(rounds["run_id"]))
    runs = runs[has_rounds].sort_values(["dataset", "algorithm", *_FIELDS, "run_id"])
    labels = _labels(runs)
    styles = _styles(runs, labels)
    return [
        Curve(
            run_id,
            labels[run_id],
            dataset,
            *styles[labels[run_id]],
            _with_megabytes(rounds, run_id),
        )
        for run_id, dataset in zip(runs["run_id"], runs["dataset"], strict=True)
    ]


def _styles(runs: pd.DataFrame, labels: Mapping[str, str]) -> dict[str, tuple[str, Line, str]]:
    """Colour, line and marker by label."""
    algorithms = sorted(set(runs["algorithm"]))
    used: Counter[int] = Counter()
    styles: dict[str, tuple[str, Line, str]] = {}
    for run_id, algorithm in zip(runs["run_id"], runs["algorithm"], strict=True):
        if labels[run_id] in styles:
            continue
        colour = algorithms.index(algorithm) % len(COLOURS)
        style = used[colour] + colour
        used[colour] += 1
        line, marker = LINES[style % len(LINES)], MARKERS[style % len(MARKERS)]
        styles[labels[run_id]] = COLOURS[colour], line, marker
    return styles


def _with_megabytes(rounds: pd.DataFrame, run_id: str) -> pd.DataFrame:
    own = rounds[rounds["run_id"] == run_id].sort_values("round")
    total = own["bytes_up_cumulative"] + own["bytes_down_cumulative"]
    return own.assign(megabytes=total / MEGABYTE)


def _labels(runs: pd.DataFrame) -> Mapping[str, str]:
    """What tells the runs of a data set apart: algorithm, fields in which runs differ, then the id."""
    differing = [name for name in _FIELDS if runs[name].nunique() > 1]
    labels = {}
    for run in runs.to_dict("records"):
        name = str(run["algorithm"])
        parts = [NAMES.get(name, name.rpartition(":")[2])]
        parts += [f"seed {run[f]}" if f == "seed" else str(run[f]) for f in differing]
        labels[run["run_id"]] = ", ".join(parts)
    alike = Counter((run["dataset"], labels[run["run_id"]]) for run in runs.to_dict("records"))
    for run in runs.to_dict("records"):
        run_id = run["run_id"]
        if alike[run["dataset"], labels[run_id]] > 1:
            labels[run_id] += f", {run_id}"
        if run["status"] != "finished":
            labels[run_id] += f" ({run['status']})"
    return labels
