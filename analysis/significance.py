"""Are differences between methods more than chance? Wilcoxon's signed-rank test, paired."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.comparisons import GLOBAL_ACCURACY, OWN_ACCURACY, Compared, opponents
from analysis.formats import nothing

FEW = "too few pairs"

DECIMALS = 9
"""Of a difference; accuracies that are further apart are not alike, those that are not differ by rounding."""

Doubles = npt.NDArray[np.float64]


def significance(of: Compared, baselines: Sequence[str] = ()) -> pd.DataFrame:
    """Each two methods, paired over seeds and settings (so over partitions) in which both finished.

    Differences are rounded to `DECIMALS` decimals, so that neither signs nor ties hang on how sums of
    floats were rounded; pairs without a difference are left out of the test, and of `least_p`.
    Two-sided p-values of Wilcoxon's signed-rank test, exact, also with ties: see `signed_rank_p`.
    `p_holm` is corrected for all comparisons by the same metric (Holm, 1979). `least_p` is the smallest
    p-value that so many differences can give, 2 / 2^(wins + losses): where it is over 0.05, nothing can
    be significant.

    Args:
        of: the runs.
        baselines: algorithms or labels that are compared with, or none: see `comparisons.opponents`.

    References:
        Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006.
    """
    against = opponents(of, baselines)
    rows = [row for metric in (OWN_ACCURACY, GLOBAL_ACCURACY) for row in _of(of, metric, against)]
    return pd.DataFrame(rows) if rows else nothing("a baseline and another method that finished")


def _of(of: Compared, metric: str, against: set[str]) -> list[dict[str, object]]:
    """The comparisons by one metric."""
    wide = of.paired(metric).dropna(axis="columns", how="all")
    values = {str(label): wide[label].to_numpy(np.float64) for label in sorted(wide.columns)}
    rows: list[dict[str, object]] = []
    for pair in combinations(values, 2):
        if against & set(pair):
            own, base = pair if pair[1] in against else pair[::-1]
            difference = values[own] - values[base]
            tested = _test(difference[~np.isnan(difference)])
            rows.append({"metric": metric, "method": own, "against": base} | tested)
    corrected = iter(holm([row["p"] for row in rows if isinstance(row["p"], float)]))
    for row in rows:
        row["p_holm"] = next(corrected) if isinstance(row["p"], float) else FEW
    return rows


def _test(differences: Doubles) -> dict[str, object]:
    """What the differences of paired values say."""
    rounded = differences.round(DECIMALS)
    told = rounded[rounded != 0]
    row: dict[str, object] = {
        "pairs": len(differences),
        "mean_difference": float(differences.mean()) if len(differences) else np.nan,
        "wins": int((told > 0).sum()),
        "losses": int((told < 0).sum()),
        "least_p": min(1.0, 2.0 / 2.0 ** len(told)),
    }
    return row | {"p": signed_rank_p(told) if len(differences) > 1 else FEW}


def signed_rank_p(differences: Doubles) -> float:
    """The exact two-sided p-value of Wilcoxon's signed-rank test; 1 without differences.

    T is the sum of the ranks of |d| (of equal ones, their mean rank) over d > 0. If signs are chance,
    each of the 2^n choices of signs is as likely; their sums are counted rank by rank. The p-value is
    min(1, 2 min(P(T <= t), P(T >= t))).

    Args:
        differences: n numbers, none of them 0.

    References:
        Wilcoxon, "Individual Comparisons by Ranking Methods", Biometrics Bulletin 1, 1945; with ties:
        Pratt and Gibbons, "Concepts of Nonparametric Theory", 1981.
    """
    ranks = (
        (2 * pd.Series(np.abs(differences)).rank()).to_numpy().astype(int)
    )  # twice: whole numbers
    chances = np.zeros(ranks.sum() + 1)
    chances[0] = 1.0
    for rank in ranks:
        chances[rank:] += chances[:-rank].copy()
        chances /= 2
    total = int(ranks[differences > 0].sum())
    return min(1.0, 2 * float(min(chances[: total + 1].sum(), chances[total:].sum())))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order of the values.

    References:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statist. 6, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
