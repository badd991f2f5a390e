"""Golden texts of small frames."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pandas as pd
import pytest

from analysis.formats import UNKNOWN, Spread, spread, to_csv, to_latex, to_markdown, to_text


def test_markdown_by_hand() -> None:
    frame = pd.DataFrame({"run": ["a|b", "c"], "MB": [1234.56, 0.123456], "to": [3, "not reached"]})
    assert to_markdown(frame) == (
        "| run | MB | to |\n"
        "| --- | --- | --- |\n"
        "| a\\|b | 1235 | 3 |\n"
        "| c | 0.1235 | not reached |\n"
    )


def test_the_terminal_table_says_once_what_all_runs_share() -> None:
    frame = pd.DataFrame(
        {
            "run_id": ["r-a", "r-b"],
            "algorithm": ["fedavg", "spatl"],
            "dataset": ["digits", "digits"],
            "MB_up": [1.5, 0.25],
        }
    )
    assert to_text(frame) == (
        "all rows: dataset digits\nalgorithm  MB_up\n   fedavg    1.5\n    spatl   0.25\n"
    )
    assert to_text(frame.head(1)) == "algorithm  dataset  MB_up\n   fedavg   digits    1.5\n"


def test_latex_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "method_name": ["a&b {50%}", "c"],
            "MB": [1.5, np.nan],
            "own": [spread([0.25, 0.75]), "none"],
        }
    )
    assert to_latex(frame) == (
        "\\begin{tabular}{lrr}\n\\toprule\n"
        "method\\_name & MB & own \\\\\n\\midrule\n"
        "a\\&b \\{50\\%\\} & 1.5 & 0.50 $\\pm$ 0.35 \\\\\n"
        "c & not known & none \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_csv_has_mean_deviation_and_number_in_columns_of_their_own() -> None:
    frame = pd.DataFrame({"method": ["a", "b"], "MB": [spread([1, 2, 3]), "not reached"]})
    back = pd.read_csv(StringIO(to_csv(frame)))
    assert back.columns.tolist() == ["method", "MB_mean", "MB_std", "MB_n"]
    assert [float(back[c][0]) for c in ("MB_mean", "MB_std", "MB_n")] == [2, 1, 3]
    assert back.loc[1].tolist() == ["b", "not reached", UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], UNKNOWN),
        ([np.nan], UNKNOWN),
        ([0.5], "0.5"),
        ([0.5, np.nan], "0.5 (1 of 2 seeds)"),
        ([0.25, 0.75], "0.50 ± 0.35"),
        ([10.0, 13.0], "11.5 ± 2.1"),
        ([100.0, 300.0], "200 ± 141"),
        ([181.25, 181.25], "181.2 ± 0"),
        ([0.1, 0.1 + 1e-12], "0.1 ± 0"),
        ([0.9e-6, 1.1e-6], "0.000001 ± 1e-07"),
        ([0.516377, 0.516381], "0.5164 ± 3e-06"),
    ],
)
def test_a_deviation_has_two_digits_and_the_mean_as_many_decimals(
    values: list[float], text: str
) -> None:
    assert str(spread(values)) == text


def test_a_spread_of_two_values() -> None:
    assert spread([1.0, 3.0]) == Spread(2.0, 2**0.5, 2)


def test_markdown_shows_names_letter_by_letter() -> None:
    frame = pd.DataFrame({"method": ["_A$x$ *b* <i> `c` a_b|"]})
    assert to_markdown(frame).splitlines()[-1] == r"| \_A\$x\$ \*b\* \<i> \`c\` a_b\| |"
