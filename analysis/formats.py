"""Frames as Markdown, LaTeX, CSV and text for a terminal; no cell is blank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

UNKNOWN = "not known"

_ROUNDING = 1e-9
"""A deviation that is a smaller share of the mean is rounding."""

_MOST_DECIMALS = 6

_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1 in the denominator) of n values; NaN if there are too few.

    Attributes:
        missing: values that are not known, or where a target was not reached; a text says so.
    """

    mean: float
    std: float
    n: int
    missing: int = 0

    def __str__(self) -> str:
        """With a note where the mean is over some seeds only."""
        note = f" ({self.n} of {self.n + self.missing} seeds)" if self.n and self.missing else ""
        return self._numbers() + note

    def _numbers(self) -> str:
        """Both with as many decimals as give the deviation two digits, and the mean four at most."""
        if self.n == 0:
            return UNKNOWN
        if self.n == 1:
            return _number(self.mean)
        if self.std <= abs(self.mean) * _ROUNDING:
            return f"{_number(self.mean)} ± 0"
        decimals = min(_decimals(self.std, 2), _MOST_DECIMALS)
        if self.mean:
            decimals = min(decimals, _decimals(abs(self.mean), 4))
        tiny = self.std < 0.5 * 10.0**-decimals
        return f"{self.mean:.{decimals}f} ± {f'{self.std:.1g}' if tiny else f'{self.std:.{decimals}f}'}"


def _decimals(value: float, digits: int) -> int:
    """How many decimals give a positive number so many digits."""
    return max(digits - 1 - math.floor(math.log10(value)), 0)


def spread(values: Sequence[float] | npt.NDArray[np.float64]) -> Spread:
    """Of the values that are known: those that are not NaN."""
    given = np.asarray(values, np.float64)
    known = given[~np.isnan(given)]
    mean = float(known.mean()) if len(known) else math.nan
    std = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return Spread(mean, std, len(known), len(given) - len(known))


NOTHING = "nothing to show"
"""The only column of a table for which there are no data."""


def nothing(needed: str) -> pd.DataFrame:
    """The table that says what it would need."""
    return pd.DataFrame({NOTHING: [f"needs {needed}"]})


def to_markdown(frame: pd.DataFrame) -> str:
    """The frame as a Markdown table; floats with four significant digits, nothing blank."""
    head, *body = [
        [_markdown(cell) for cell in line] for line in [list(frame.columns), *_rows(frame)]
    ]
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _markdown(cell: object) -> str:
    """A cell without what ends it, or what is a formula, an emphasis or a tag."""
    text = str(cell).replace("\n", " ")
    text = "".join(f"\\{c}" if c in "\\|$*`<" else c for c in text)
    return f"\\{text}" if text.startswith("_") else text


def to_latex(frame: pd.DataFrame) -> str:
    """The frame as a LaTeX tabular of package booktabs, every character escaped."""
    head, *body = [
        " & ".join(map(_latex, line)) + r" \\" for line in [list(frame.columns), *_rows(frame)]
    ]
    numbers = [pd.api.types.is_numeric_dtype(frame[c]) or _spreads(frame[c]) for c in frame.columns]
    places = "".join("r" if is_number else "l" for is_number in numbers)
    lines = [rf"\begin{{tabular}}{{{places}}}", r"\toprule", head, r"\midrule", *body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def to_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV with full precision; what is not known says so.

    A mean with its deviation becomes three columns: NAME_mean, NAME_std and NAME_n.
    """
    columns: dict[str, pd.Series] = {}
    for name in frame.columns:
        column = frame[name].astype(object)
        if not _spreads(column):
            columns[name] = column
            continue
        for part in ("mean", "std", "n"):
            columns[f"{name}_{part}"] = column.map(
                lambda value, part=part: getattr(value, part, value if part == "mean" else None)
            ).astype(object)
    return pd.DataFrame(columns).to_csv(index=False, na_rep=UNKNOWN, lineterminator="\n")


def to_text(frame: pd.DataFrame) -> str:
    """The frame for a terminal: what all of several rows share in one line, then an aligned table."""
    alike = [c for c in frame.columns if len(frame) > 1 and frame[c].nunique(dropna=False) == 1]
    shared = ", ".join(f"{column} {cell_text(frame[column].iloc[0])}" for column in alike)
    different = frame.drop(columns=alike)
    if "algorithm" in different and different["algorithm"].is_unique:
        different = different.drop(columns="run_id", errors="ignore")
    cells = [list(map(str, different.columns)), *_rows(different)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([*([f"all rows: {shared}"] if shared else []), *rows]) + "\n"


def cell_text(value: object) -> str:
    """A value as tables show it."""
    if isinstance(value, float):
        return UNKNOWN if math.isnan(value) else _number(value)
    return UNKNOWN if value is None or value is pd.NA else str(value)


FORMATS: Mapping[str, str] = {"md": "Markdown", "latex": "LaTeX", "csv": "CSV"}


def render(frame: pd.DataFrame, kind: str) -> str:
    """The frame in one of `FORMATS`."""
    return {"md": to_markdown, "latex": to_latex, "csv": to_csv}[kind](frame)


def _rows(frame: pd.DataFrame) -> list[list[str]]:
    return [[cell_text(value) for value in row] for row in frame.itertuples(index=False)]


def _spreads(column: pd.Series) -> bool:
    """Whether a column holds means with their deviations (beside texts that say why not)."""
    return bool(column.map(lambda value: isinstance(value, Spread)).any())


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _latex(value: object) -> str:
    return "".join(_LATEX.get(character, character) for character in str(value))
