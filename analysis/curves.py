"""How each run is drawn: label, colour, line and marker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.tables import MEGABYTE, SIMULATED

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito, Color Universal Design, 2008; without its yellow, too pale for a line on white."""

LINES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
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

_FIELDS = ("dataset", "partition", "model", "seed")
RUN_COLUMNS = ["run_id", "algorithm", "status", *_FIELDS]


@dataclass(frozen=True)
class Curve:
    """One run as it is drawn.

    Attributes:
        rounds: its rounds in order, with a column `megabytes`: sent up and down so far.
    """

    label: str
    colour: str
    line: str | tuple[int, tuple[float, ...]]
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
    """One curve a run that has rounds: runs of one algorithm share a colour while colours last."""
    has_rounds = runs["run_id"].isin(set(rounds["run_id"]))
    runs = runs[has_rounds].sort_values(["algorithm", *_FIELDS, "run_id"])
    labels = _labels(runs)
    algorithms = list(dict.fromkeys(runs["algorithm"]))
    used: Counter[int] = Counter()
    drawn = []
    for run_id, algorithm in zip(runs["run_id"], runs["algorithm"], strict=True):
        colour = algorithms.index(algorithm) % len(COLOURS)
        style = used[colour] + colour
        used[colour] += 1
        own = rounds[rounds["run_id"] == run_id].sort_values("round")
        total = own["bytes_up_cumulative"] + own["bytes_down_cumulative"]
        own = own.assign(megabytes=total / MEGABYTE)
        line, marker = LINES[style % len(LINES)], MARKERS[style % len(MARKERS)]
        drawn.append(Curve(labels[run_id], COLOURS[colour], line, marker, own))
    return drawn


def _labels(runs: pd.DataFrame) -> Mapping[str, str]:
    """What tells the runs apart: the algorithm, the fields in which they differ, then the id."""
    differing = [name for name in _FIELDS if runs[name].nunique() > 1]
    labels = {}
    for run in runs.to_dict("records"):
        name = str(run["algorithm"])
        parts = [NAMES.get(name, name.rpartition(":")[2])]
        parts += [f"seed {run[f]}" if f == "seed" else str(run[f]) for f in differing]
        labels[run["run_id"]] = ", ".join(parts)
    alike = Counter(labels.values())
    for run in runs.to_dict("records"):
        run_id = run["run_id"]
        if alike[labels[run_id]] > 1:
            labels[run_id] += f", {run_id}"
        if run["status"] != "finished":
            labels[run_id] += f" ({run['status']})"
    return labels
