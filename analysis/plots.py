"""Pictures of a results folder, and the table of its runs.

python analysis/plots.py RESULTS [--what NAME ...] [--format png|svg|pdf] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis import clients
from analysis.aims import Target
from analysis.bars import phases_figure, target_figure
from analysis.comparisons import Compared, compared, lacking_rounds, lacking_runs, targets
from analysis.curves import Curve, curves
from analysis.formats import UNKNOWN, to_csv, to_markdown, to_text
from analysis.lines import bytes_figure, drift_figure, rounds_figure, simulated_figure
from analysis.load import LoadError, Results, holds
from analysis.methods import SETTING
from analysis.metrics import (
    COSINE,
    FLOPS,
    GLOBAL,
    KEPT,
    REWARD,
)
from analysis.panels import pages
from analysis.pareto import pareto_figure, trials
from analysis.places import output
from analysis.selection import flops_figure, keep_ratio_figure, mean_ratios, reward_figure
from analysis.spreads import clients_figure, partition_figure
from analysis.tables import add_target, runs_table, target_of


@dataclass(frozen=True)
class Drawing:
    """What pictures are made of; each part is read when it is first needed.

    Attributes:
        results: a results folder, or several.
        metric: the column that is to reach the target, or None for the own-split accuracy.
        target: its value, what to be like, or None.
    """

    results: Results
    metric: str | None = None
    target: Target = None

    @cached_property
    def compared(self) -> Compared:
        """The runs with their figures."""
        return compared(self.results, self.target, self.metric)

    @property
    def runs(self) -> pd.DataFrame:
        """Rows of table runs."""
        return self.compared.runs

    @property
    def rounds(self) -> pd.DataFrame:
        """Rows of table rounds."""
        return self.compared.rounds

    @cached_property
    def drawn(self) -> list[Curve]:
        """The methods in their settings."""
        return curves(self.runs, self.rounds)

    @property
    def metrics(self) -> list[str]:
        """The accuracies, and the metric of the target."""
        own = self.compared.own
        return list(dict.fromkeys([own, GLOBAL, self.metric or own]))

    def knowing(self, *columns: str) -> list[Curve]:
        """The methods that know all the columns."""
        return [curve for curve in self.drawn if all(curve.knows(name) for name in columns)]

    def lines(self, draw: Callable[[list[Curve], list[str]], Figure]) -> list[Figure]:
        """A line a method: a picture for every few settings."""
        return [draw(page, self.metrics) for page in pages(self.drawn)]

    def simulated(self) -> list[Figure]:
        """Accuracy against simulated seconds, if there are any."""
        timed = [page for page in pages(self.drawn) if any(curve.is_timed for curve in page)]
        return [simulated_figure(page, self.metrics) for page in timed]

    def target_bars(self) -> list[Figure]:
        """Bytes to the target by method; where nobody reaches it, the picture says so."""
        rows = targets(self.compared)
        rows = rows[(rows["seeds"] > 0) & (rows["target"] != UNKNOWN)]
        if not len(rows):
            return []
        shown = [name for name in SETTING if name in rows]
        words = self.runs.drop_duplicates(SETTING)
        rows = rows.merge(words[[*shown, "setting"]], on=shown)
        names = list(dict.fromkeys(rows["setting"]))
        return [
            target_figure(rows[rows["setting"].isin(names[i : i + 5])], self.drawn)
            for i in range(0, len(names), 5)
        ]

    def client_spread(self) -> list[Figure]:
        """Accuracy over clients."""
        if not holds(self.results, "clients"):
            return []
        values = clients.final(self.results, self.rounds, known=self.compared.own)
        there = set(values["run_id"])
        known = [curve for curve in self.drawn if there & curve.runs.keys()]
        return [clients_figure(page, values) for page in pages(known)]

    def partition(self) -> list[Figure]:
        """Who holds what."""
        return [partition_figure(self.runs)] if self.runs["holdings"].notna().any() else []

    def keep_ratios(self) -> list[Figure]:
        """What selection keeps of each layer."""
        if not holds(self.results, "layers"):
            return []
        layers = mean_ratios(self.results)
        selecting = set(layers.loc[layers["keep_ratio"].lt(1), "run_id"])
        own = [curve for curve in self.drawn if selecting & curve.runs.keys()]
        return [keep_ratio_figure(own, layers, self.runs)] if own else []

    def flops(self) -> list[Figure]:
        """Accuracy of what is kept against its FLOPs."""
        return [flops_figure(page, self.runs) for page in pages(self.knowing(FLOPS, KEPT))]

    def rewards(self) -> list[Figure]:
        """The agents' rewards."""
        return [reward_figure(page) for page in pages(self.knowing(REWARD))]

    def pareto(self) -> list[Figure]:
        """The fronts of searches."""
        table = trials(self.runs, self.rounds)
        return [pareto_figure(table)] if len(table) else []

    def drift(self) -> list[Figure]:
        """How far clients pull apart."""
        return [drift_figure(page) for page in pages(self.knowing(COSINE))]

    def phases(self) -> list[Figure]:
        """Seconds by phase."""
        return [phases_figure(page) for page in pages(self.drawn)]


PICTURES: Mapping[str, tuple[str, Callable[[Drawing], list[Figure]]]] = {
    "rounds": ("accuracy_rounds", partial(Drawing.lines, draw=rounds_figure)),
    "bytes": ("accuracy_bytes", partial(Drawing.lines, draw=bytes_figure)),
    "simulated": ("accuracy_simulated_seconds", Drawing.simulated),
    "target": ("bytes_to_target", Drawing.target_bars),
    "clients": ("client_accuracies", Drawing.client_spread),
    "partition": ("partition", Drawing.partition),
    "keep": ("keep_ratios", Drawing.keep_ratios),
    "flops": ("accuracy_flops", Drawing.flops),
    "reward": ("selection_reward", Drawing.rewards),
    "pareto": ("pareto", Drawing.pareto),
    "drift": ("client_drift", Drawing.drift),
    "phases": ("seconds_by_phase", Drawing.phases),
}
"""What can be asked for: the file's name, and what draws it; nothing where there are no data."""


def figures(of: Drawing, what: Sequence[str] = ()) -> dict[str, Figure]:
    """The pictures of `what` that there are data for, by file name; none means all."""
    made = {}
    for name in what or PICTURES:
        stem, draw = PICTURES[name]
        drawn = draw(of)
        for number, figure in enumerate(drawn, 1):
            made[stem if number == 1 else f"{stem}_{number}"] = figure
    return made


def save(
    of: Drawing, out: Path, kind: str = "png", what: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[Path]]:
    """Write the pictures, and the table of runs as Markdown and CSV.

    Args:
        of: what they are made of.
        out: a folder.
        kind: png, svg or pdf.
        what: of `PICTURES`; none: all that there are data for.

    Returns:
        The table of runs, and the paths of what was written.

    Raises:
        LoadError: the folder cannot be read, or has no rounds or no such metric; or there are no
            data for a picture that is named.
    """
    table = runs_table(of.compared)
    drawn = figures(of, what)
    if lacking := [
        name for name in what if not any(s.startswith(PICTURES[name][0]) for s in drawn)
    ]:
        raise LoadError(f"these runs have no data for picture {lacking[0]!r}")
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn.items():
        paths.append(out / f"{name}.{kind}")
        figure.savefig(paths[-1], dpi=150)
    for name, text in (("summary.md", to_markdown(table)), ("summary.csv", to_csv(table))):
        paths.append(out / name)
        paths[-1].write_text(text, encoding="utf-8")
    return table, paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what the command line names; 1 if it cannot be read or written."""
    options = _parser().parse_args(arguments)
    out = options.out or output(options.results[0], "plots")
    of = Drawing(options.results, options.metric, target_of(options))
    try:
        table, paths = save(of, out, options.format, options.what)
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.show_table:
        print(to_text(table))
    print(*paths, sep="\n")
    for note in filter(None, (lacking_rounds(of.compared), lacking_runs(of.compared))):
        print(f"note: {note}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Pictures of results, and the table of their runs."
    )
    parser.add_argument("results", nargs="+", help="results folder or address, or several")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder (default: RESULTS/plots; here if that is an address)",
    )
    parser.add_argument(
        "--what",
        nargs="+",
        choices=PICTURES,
        default=(),
        metavar="PICTURE",
        help=f"of {', '.join(PICTURES)} (default: all that there are data for)",
    )
    add_target(parser)
    parser.add_argument("--format", choices=("png", "svg", "pdf"), default="png")
    parser.add_argument(
        "--show-table",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="print the table of runs (default: yes)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
