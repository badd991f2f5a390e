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

from analysis.aims import LAST, Like, Target, check_methods
from analysis.comparisons import (
    Compared,
    accuracy,
    compared,
    cost,
    fairness,
    lacking_pairs,
    lacking_rounds,
    lacking_runs,
    savings,
    targets,
)
from analysis.formats import FORMATS, NOTHING, nothing, render
from analysis.load import LoadError
from analysis.metrics import BETTER, OWN, PANEL
from analysis.pareto import front_table
from analysis.significance import significance
from analysis.summary import in_words


def search_front(of: Compared) -> pd.DataFrame:
    """The trials of searches that none beats in both accuracy and bytes."""
    return front_table(of.runs, of.rounds)


def runs_table(of: Compared) -> pd.DataFrame:
    """A row a run."""
    return in_words(of.runs, of.own)


TABLES: Mapping[str, Callable[[Compared], pd.DataFrame]] = {
    "accuracy": accuracy,
    "target": targets,
    "fairness": fairness,
    "cost": cost,
    "pareto": search_front,
    "runs": runs_table,
}
PAIRED: Mapping[str, Callable[[Compared, Sequence[str]], pd.DataFrame]] = {
    "savings": savings,
    "significance": significance,
}
"""Those with baselines."""

WHAT = (
    *("accuracy", "target", "savings", "fairness"),
    *("cost", "significance", "pareto", "runs"),
)
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
    of: Compared, what: Sequence[str] = WHAT, baselines: Sequence[str] = ()
) -> dict[str, pd.DataFrame]:
    """The named tables.

    Args:
        of: the runs.
        what: of `WHAT`; all of them leave `pareto` out where there is no search.
        baselines: algorithms or methods that others are compared with; none: `comparisons.opponents`.

    Raises:
        LoadError: a table cannot be read, or there is no such baseline.
    """
    made = {
        name: PAIRED[name](of, baselines) if name in PAIRED else TABLES[name](of) for name in what
    }
    if what == WHAT and NOTHING in made["pareto"]:
        del made["pareto"]  # Few folders hold a search.
    return made


def of_methods(
    made: Mapping[str, pd.DataFrame], of: Compared, names: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """The tables' rows of some methods; of none, all of them.

    Args:
        made: the tables; those without methods stay whole.
        of: the runs.
        names: algorithms or labels.

    Raises:
        LoadError: there is no such method.
    """
    check_methods(of.runs, names, "of")
    if not names:
        return dict(made)
    own = of.runs[of.runs[["algorithm", "label"]].isin(names).any(axis=1)]
    values = {"method": set(own["label"]), "run_id": set(own["run_id"])}

    def cut(table: pd.DataFrame) -> pd.DataFrame:
        column = next((name for name in values if name in table), None)
        rows = table if column is None else table[table[column].isin(values[column])]
        return rows if len(rows) else nothing("rows of these methods")

    return {name: cut(table) for name, table in made.items()}


def notes(of: Compared, what: Sequence[str] = WHAT, baselines: Sequence[str] = ()) -> list[str]:
    """What a reader of the tables has to know: runs in no mean or no table, pairs that are not compared."""
    pairs = lacking_pairs(of, baselines) if PAIRED.keys() & set(what) else ""
    return [note for note in (lacking_rounds(of), lacking_runs(of), pairs) if note]


def text_of(made: Mapping[str, pd.DataFrame], kind: str, told: Sequence[str] = ()) -> str:
    """Several tables in one text, each with its title (as a comment in LaTeX and CSV); notes first."""
    if len(made) == 1:
        return render(next(iter(made.values())), kind)
    mark = {"md": "## ", "latex": "% ", "csv": "# "}[kind]
    blank = "\n" if kind == "md" else ""
    parts = [f"{mark.replace('## ', '')}{note}\n" for note in told]
    parts += [f"{mark}{TITLES[name]}\n{blank}{render(table, kind)}" for name, table in made.items()]
    return "\n".join(parts)


def write(
    made: Mapping[str, pd.DataFrame], kind: str, out: Path, told: Sequence[str] = ()
) -> list[Path]:
    """A file a table in a folder, or one file for all, with the notes, if `out` has an ending."""
    if out.suffix and not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text_of(made, kind, told), encoding="utf-8")
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
        of = compared(options.results, target_of(options), options.metric)
        made = of_methods(tables(of, options.what, options.baseline), of, options.of)
        told = notes(of, options.what, options.baseline)
        if options.out is None:
            print(text_of(made, options.format, told), end="")
        else:
            print(*write(made, options.format, options.out, told), sep="\n")
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for note in told:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Tables of results, over seeds and by run.")
    parser.add_argument("results", nargs="+", help="results folder or address, or several")
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
    parser.add_argument(
        "--of",
        nargs="+",
        default=(),
        metavar="METHOD",
        help="algorithms or methods whose rows are shown (default: all)",
    )
    add_target(parser)
    add_baseline(parser)
    return parser


def add_baseline(parser: argparse.ArgumentParser) -> None:
    """The option that chooses what savings and significance are against."""
    parser.add_argument(
        "--baseline",
        nargs="+",
        default=(),
        metavar="METHOD",
        help="algorithms or methods that savings and significance are against (default: each, or FedAvg "
        "of many)",
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    """The options that choose what is to be reached."""
    parser.add_argument(
        "--metric",
        help=f"what is to reach the target: of {', '.join(BETTER)} (default: {PANEL}, or {OWN} where "
        "a run lacks it)",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--target",
        type=float,
        help="value to reach, of a loss from above (default: in each setting the worst of the "
        "finished runs' best)",
    )
    either.add_argument(
        "--target-of",
        nargs="+",
        metavar="METHOD",
        help=f"reach what this method comes to (mean of its last {LAST} evaluations) in the same setting and "
        "with the same seed; the mean, if several are named",
    )
    parser.add_argument(
        "--margin", type=float, default=0.0, help="by how much that may be missed (default: 0)"
    )


def target_of(options: argparse.Namespace) -> Target:
    """What is to be reached, by the options of `add_target`."""
    if options.target_of is None:
        found: float | None = options.target
        return found
    return Like(tuple(options.target_of), options.margin)


if __name__ == "__main__":
    sys.exit(main())
