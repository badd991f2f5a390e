"""What is drawn as one: a method in a setting, its seeds together, with its colour, line and marker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.methods import FINISHED, by_seed, tagged
from analysis.metrics import BYTES, MEGABYTE, SIMULATED, is_lower_better

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito, Color Universal Design, 2008; without its yellow, too pale for a line on white."""

Line = str | tuple[int, tuple[float, ...]]
LINES: tuple[Line, ...] = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

MOST_CURVES = 10
"""Methods of a panel that are told apart; more would be a thicket."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A method in a setting.

    Attributes:
        setting: in words; methods of one share their panels.
        rounds: a row a seed and round, of its runs' table rounds, with a column `megabytes`: sent up
            and down so far. See `methods.by_seed`.
        runs: the seed of each of its runs.
    """

    label: str
    setting: str
    colour: str
    line: Line
    marker: str
    rounds: pd.DataFrame
    runs: Mapping[str, int]

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(set(self.runs.values()))

    def own(self, rows: pd.DataFrame, at: Sequence[str]) -> pd.DataFrame:
        """Numbers of its runs, a row a seed and value of `at`, such as client; it may have none."""
        mine = rows[rows["run_id"].isin(self.runs.keys())]
        return by_seed(mine.assign(seed=mine["run_id"].map(self.runs)), at=at)

    @property
    def is_silent(self) -> bool:
        """Whether not a byte travelled."""
        return not (self.rounds["megabytes"] > 0).any()

    @property
    def is_timed(self) -> bool:
        """Whether its clients have devices, so that its time there is known."""
        return bool(self.rounds[SIMULATED].notna().any())

    def knows(self, column: str) -> bool:
        """Whether some round has the column."""
        return bool(self.rounds[column].notna().any())

    def points(self, x: str, metric: str) -> pd.DataFrame:
        """The metric by round: columns x, mean, low and high (mean -+ standard deviation).

        Only rounds in which all its seeds know the metric: a mean over others would jump. Where x
        differs between runs, as bytes do, it is their mean.
        """
        known = self.rounds[self.rounds[metric].notna()]
        _, place, seeds = np.unique(known["round"], return_inverse=True, return_counts=True)

        def sums(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.bincount(place, values, minlength=len(seeds)).astype(np.float64)

        value = known[metric].to_numpy(np.float64)
        at, mean = sums(known[x].to_numpy(np.float64)) / seeds, sums(value) / seeds
        std = np.sqrt(sums((value - mean[place]) ** 2) / np.maximum(seeds - 1, 1))
        points = {"x": at, "mean": mean, "low": mean - std, "high": mean + std}
        is_whole = seeds == self.seeds
        return pd.DataFrame({name: column[is_whole] for name, column in points.items()})

    def looking(self, colour: str, line: Line, marker: str) -> Curve:
        """The same, drawn in another way."""
        return replace(self, colour=colour, line=line, marker=marker)

    def final(self, metric: str) -> float:
        """The mean over its seeds of the last known value; NaN without any."""
        return float(self.rounds.groupby("seed")[metric].last().mean())


def curves(runs: pd.DataFrame, rounds: pd.DataFrame) -> list[Curve]:
    """One curve a method and setting that has rounds; unfinished runs are curves of their own.

    A method looks the same in all settings.

    Args:
        runs: rows of table runs, with `methods.RUN_COLUMNS`, as `methods.judged` gives them.
        rounds: rows of table rounds.
    """
    runs = tagged(runs[runs["run_id"].isin(set(rounds["run_id"]))])
    unfinished = runs["status"] != FINISHED
    runs.loc[unfinished, "label"] += " (" + runs["status"] + ")"
    runs = runs.sort_values(["setting", "algorithm", "label", "seed", "run_id"])
    looks = {label: look(place) for place, label in enumerate(dict.fromkeys(runs["label"]))}
    rounds = rounds.assign(megabytes=rounds[BYTES].sum(axis=1) / MEGABYTE)
    whose = ["setting", "label"]
    rows = by_seed(rounds.merge(runs[["run_id", "seed", *whose]], on="run_id"), whose, ["round"])
    own = dict(iter(rows.groupby(whose)))
    drawn = []
    for _, alike in runs.groupby(whose, sort=False):
        setting, label = str(alike["setting"].iloc[0]), str(alike["label"].iloc[0])
        seeds = dict(zip(alike["run_id"], alike["seed"], strict=True))
        drawn.append(Curve(label, setting, *looks[label], own[setting, label], seeds))
    return drawn


def look(place: int) -> tuple[str, Line, str]:
    """Colour, line and marker of the method in a place: no two of 315 look the same."""
    style = place % len(COLOURS) + 2 * (place // len(COLOURS))
    return COLOURS[place % len(COLOURS)], LINES[style % len(LINES)], MARKERS[style % len(MARKERS)]


def best(drawn: Sequence[Curve], metric: str, most: int = MOST_CURVES) -> list[Curve]:
    """The curves that end best, in their order; all of them if there are few."""
    if len(drawn) <= most:
        return list(drawn)
    sign = 1 if is_lower_better(metric) else -1

    def rank(curve: Curve) -> tuple[bool, float]:
        value = curve.final(metric)
        return value != value, sign * value  # those that never knew it are last

    chosen = {id(curve) for curve in sorted(drawn, key=rank)[:most]}
    return [curve for curve in drawn if id(curve) in chosen]
