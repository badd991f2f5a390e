"""Are differences between methods more than chance? Wilcoxon's signed-rank test, paired."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import wilcoxon

from analysis.comparisons import GLOBAL_ACCURACY, OWN_ACCURACY, Compared
from analysis.formats import nothing
from analysis.methods import SETTING

FEW = "too few pairs"


def significance(of: Compared) -> pd.DataFrame:
    """Each two methods, paired over seeds and settings (so over partitions) in which both finished.

    Two-sided p-values of Wilcoxon's signed-rank test, exact up to 50 pairs without ties or zeros;
    `p_holm` is corrected for all comparisons by the same metric (Holm, 1979). `least_p` is the smallest
    p-value that so many pairs can give, 2 / 2^n: where it is over 0.05, nothing can be significant.

    References:
        Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006.
    """
    rows = [row for metric in (OWN_ACCURACY, GLOBAL_ACCURACY) for row in _of(of.finished, metric)]
    if not rows:
        return nothing("two methods with finished runs")
    return pd.DataFrame(rows)


def _of(runs: pd.DataFrame, metric: str) -> list[dict[str, object]]:
    """The comparisons by one metric."""
    wide = runs.pivot_table(
        index=[*SETTING, "seed"], columns="label", values=metric, aggfunc="mean"
    )
    rows: list[dict[str, object]] = []
    for first, second in combinations(sorted(runs["label"].unique()), 2):
        if first in wide and second in wide:
            pairs = wide[[first, second]].dropna()
            rows.append(
                {"metric": metric, "method": first, "against": second}
                | _test((pairs[first] - pairs[second]).to_numpy(np.float64))
            )
    corrected = holm([row["p"] for row in rows if isinstance(row["p"], float)])
    for row in rows:
        row["p_holm"] = corrected.pop(0) if isinstance(row["p"], float) else FEW
    return rows


def _test(differences: npt.NDArray[np.float64]) -> dict[str, object]:
    """What the differences of paired values say."""
    n = len(differences)
    row: dict[str, object] = {
        "pairs": n,
        "mean_difference": float(differences.mean()) if n else np.nan,
        "wins": int((differences > 0).sum()),
        "losses": int((differences < 0).sum()),
        "least_p": min(1.0, 2.0 / 2.0**n),
    }
    if n < 2:
        return row | {"p": FEW}
    p = 1.0 if not differences.any() else float(wilcoxon(differences).pvalue)
    return row | {"p": p}


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
