"""Tables of a results folder, as Markdown, LaTeX or CSV.

python analysis/tables.py RESULTS [--what NAME ...] [--format md|latex|csv] [--out FILE|FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.comparisons import Compared, accuracy, compared, cost, fairness, savings, targets
from analysis.formats import FORMATS, NOTHING, render
from analysis.load import LoadError, Results, load
from analysis.metrics import BYTES, OWN, PANEL, VALIDATION
from analysis.pareto import front_table
from analysis.significance import significance
from analysis.summary import summary


def search_front(of: Compared) -> pd.DataFrame:
    """The trials of searches that none beats in both accuracy and bytes."""
    rounds = load(of.results, "rounds", ["run_id", "round", VALIDATION, *BYTES])
    return front_table(of.runs, rounds)


TABLES: Mapping[str, Callable[[Compared], pd.DataFrame]] = {
    "accuracy": accuracy,
    "target": targets,
    "savings": savings,
    "fairness": fairness,
    "cost": cost,
    "significance": significance,
    "pareto": search_front,
}
"""Over seeds, or over trials; `runs` is the table with a row a run."""

WHAT = (*TABLES, "runs")
TITLES = {
    "accuracy": "Final and best accuracy, mean and standard deviation over seeds",
    "target": "Rounds and bytes to the target accuracy",
    "savings": "Savings against each baseline, paired by seed (0.5: half of it is saved)",
    "fairness": "Own-split accuracy over clients, after the last evaluated round",
    "cost": "Bytes, FLOPs and time",
    "significance": "Paired over seeds and settings: Wilcoxon's signed-rank test",
    "pareto": "Trials on the Pareto front of each search: validation accuracy against bytes",
    "runs": "Runs",
}
_ENDINGS = {"md": "md", "latex": "tex", "csv": "csv"}


def tables(
    results: Results,
    what: Sequence[str] = WHAT,
    target: float | None = None,
    metric: str | None = None,
    baselines: Sequence[str] = (),
) -> dict[str, pd.DataFrame]:
    """The named tables of a results folder, or of several.

    Args:
        results: folders.
        what: of `WHAT`; all of them leave `pareto` out where there is no search.
        target: the value of `metric` to reach; None: in each setting the hardest that all runs reach.
        metric: a column of table rounds; None: the own-split accuracy.
        baselines: of the table `savings`: algorithms or methods; none for each other method.

    Raises:
        LoadError: the folder cannot be read, or has no rounds, no such metric or no such baseline.
    """
    of = compared(results, target, metric) if set(what) & TABLES.keys() else None
    made = {}
    for name in what:
        if of is None or name == "runs":
            made[name] = summary(results, target, metric)
        elif name == "savings":
            made[name] = savings(of, baselines)
        else:
            made[name] = TABLES[name](of)
    if what == WHAT and NOTHING in made["pareto"]:
        del made["pareto"]  # Few folders hold a search.
    return made


def text_of(made: Mapping[str, pd.DataFrame], kind: str) -> str:
    """Several tables in one text, each with its title (as a comment in LaTeX and CSV)."""
    mark = {"md": "## ", "latex": "% ", "csv": "# "}[kind]
    blank = "\n" if kind == "md" else ""
    parts = [f"{mark}{TITLES[name]}\n{blank}{render(table, kind)}" for name, table in made.items()]
    return "\n".join(parts) if len(made) > 1 else render(next(iter(made.values())), kind)


def write(made: Mapping[str, pd.DataFrame], kind: str, out: Path) -> list[Path]:
    """A file a table in a folder, or one file for all if `out` has an ending."""
    if out.suffix and not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text_of(made, kind), encoding="utf-8")
        return [out]
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, table in made.items():
        paths.append(out / f"{name}.{_ENDINGS[kind]}")
        paths[-1].write_text(render(table, kind), encoding="utf-8")
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Print or write what the command line names; 1 if it cannot be read or written."""
    options = _parser().parse_args(arguments)
    try:
        made = tables(
            options.results, options.what, options.target, options.metric, options.baseline
        )
        if options.out is None:
            print(text_of(made, options.format), end="")
            return 0
        for path in write(made, options.format, options.out):
            print(path)
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Tables of results, over seeds and by run.")
    parser.add_argument("results", type=Path, nargs="+", help="results folder, or several")
    parser.add_argument(
        "--what",
        nargs="+",
        choices=WHAT,
        default=WHAT,
        metavar="TABLE",
        help=f"of {', '.join(WHAT)} (default: all)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="md", help="how they are written (default: md)"
    )
    parser.add_argument(
        "--out", type=Path, help="a file for all, or a folder with a file each (default: print)"
    )
    add_target(parser)
    parser.add_argument(
        "--baseline",
        nargs="+",
        default=(),
        metavar="METHOD",
        help="algorithms or methods that savings are against (default: each)",
    )
    return parser


def add_target(parser: argparse.ArgumentParser) -> None:
    """The options that choose what is to be reached."""
    parser.add_argument(
        "--metric",
        help=f"column of the table rounds for the target (default: {PANEL}, or {OWN} where a run "
        "lacks it)",
    )
    parser.add_argument(
        "--target",
        type=float,
        help="value to reach, of a loss from above (default: the worst of the runs' best)",
    )


if __name__ == "__main__":
    sys.exit(main())
