"""One row a method and setting, over its seeds: accuracy, cost to a target, savings, fairness, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations

import numpy as np
import pandas as pd

from analysis import clients
from analysis.aims import Target, check_methods
from analysis.clients import Doubles
from analysis.formats import UNKNOWN, Spread, nothing, spread
from analysis.load import Results, load
from analysis.methods import (
    FINISHED,
    INCOMPLETE,
    RUN_COLUMNS,
    SETTING,
    by_seed,
    furthest,
    judged,
    tagged,
)
from analysis.metrics import FLOPS, PHASES, own_split
from analysis.summary import NOT_REACHED, TO_TARGET, load_rounds, with_figures

ALWAYS = ["dataset", "partition", "model"]
"""What of a setting every table shows; the rest is shown where it differs."""

OWN_ACCURACY, GLOBAL_ACCURACY = "final_own_test_accuracy", "final_global_test_accuracy"

MOST_PAIRED = 20
"""Methods that are compared each with each; of more, only with baselines."""

_NAMED = 5  # runs in a note
_METHOD = [*SETTING, "label"]


@dataclass(frozen=True, eq=False)
class Compared:
    """What the tables are made of.

    Attributes:
        results: where everything else is read.
        runs: a row a run, tagged, with its figures: see `summary.with_figures`.
        rounds: rows of table rounds.
        own: the column of rounds with the own-split accuracy.
    """

    results: Results
    runs: pd.DataFrame
    rounds: pd.DataFrame
    own: str

    @property
    def finished(self) -> pd.DataFrame:
        """The runs that ended as they should: only these are in means."""
        return self.runs[self.runs["status"] == FINISHED]

    def seeds(self, numbers: pd.DataFrame) -> pd.DataFrame:
        """Numbers of the finished runs, a row a setting, method and seed.

        Args:
            numbers: with the run ids as index; not known where it lacks a run.
        """
        runs = self.finished[[*_METHOD, "seed", "run_id"]].set_index("run_id")
        rows = pd.concat([runs, numbers.reindex(runs.index).astype(float)], axis=1)
        return by_seed(rows.reset_index(), whose=_METHOD)

    def figures(self, *names: str) -> pd.DataFrame:
        """Some of the runs' figures, by run id."""
        return self.runs.set_index("run_id")[list(names)]

    @cached_property
    def _pairable(self) -> pd.DataFrame:
        numbers = self.figures(OWN_ACCURACY, GLOBAL_ACCURACY, "MB_to_target", "rounds_to_target")
        return self.seeds(numbers.assign(MB=self.figures("MB_up", "MB_down").sum(axis=1)))

    def paired(self, name: str) -> pd.DataFrame:
        """A figure that methods are compared by: a row a setting and seed, a column a method."""
        return self._pairable.pivot(index=[*SETTING, "seed"], columns="label", values=name)


def compared(results: Results, target: Target = None, metric: str | None = None) -> Compared:
    """Read what the tables need.

    Args:
        results: a results folder, or several.
        target: the value of `metric` to reach, what to be like, or None: in each setting the worst of
            its finished runs' best values.
        metric: a column of rounds, one of `metrics.BETTER`; None: the own-split accuracy.

    Raises:
        LoadError: the folder cannot be read, or has no rounds or no such metric.
    """
    rounds = load_rounds(results, metric)
    runs = judged(load(results, "runs", [*RUN_COLUMNS, "holdings"]), rounds)
    runs = tagged(furthest(runs, rounds))
    own = own_split(rounds)
    return Compared(results, with_figures(runs, rounds, target, metric or own, own), rounds, own)


def lacking_pairs(of: Compared, baselines: Sequence[str] = ()) -> str:
    """Between which methods savings and significance leave pairs out; "" if none."""
    methods, against = of.finished["label"].nunique(), len(opponents(of, baselines))
    if baselines or against == methods:
        return ""
    whom = "FedAvg only" if against else "none of them: name some with --baseline"
    return f"Savings and significance of {methods} methods are against {whom}."


def lacking_rounds(of: Compared) -> str:
    """Which runs finished and are not all there; "" if none."""
    runs = of.runs[of.runs["status"] == INCOMPLETE]
    names = [
        f"{run['run_id']} ({run['rounds_done']:.0f} of {run['rounds']} rounds)"
        for run in runs.head(_NAMED).to_dict("records")
    ]
    names += [f"{len(runs) - _NAMED} more"] if len(runs) > _NAMED else []
    return (
        f"Runs that finished and lack rounds are in no mean: {', '.join(names)}." if names else ""
    )


def lacking_runs(of: Compared) -> str:
    """Which runs have rounds and no row in table runs; "" if none."""
    names = sorted(set(of.rounds["run_id"]) - set(of.runs["run_id"]))
    return f"Left out, for they have no row in table runs: {', '.join(names)}." if names else ""


def accuracy(of: Compared) -> pd.DataFrame:
    """Final and best accuracies: mean and standard deviation over seeds."""
    best = ("best_own_test_accuracy", "best_global_test_accuracy")
    return _a_row_a_method(of, of.figures(OWN_ACCURACY, GLOBAL_ACCURACY, *best))


def targets(of: Compared) -> pd.DataFrame:
    """Rounds, bytes and simulated seconds to the target, over those seeds that reach it.

    A seed with several runs reaches it if they all do.
    """
    is_timed = bool(of.runs["simulated_seconds"].notna().any())
    names = TO_TARGET if is_timed else TO_TARGET[:-1]
    table = _a_row_a_method(of, of.figures(*names))
    reached = [spread.n for spread in table["rounds_to_target"]]
    for name in names:
        cells = zip(table[name], reached, table["seeds"], strict=True)
        table[name] = pd.Series([_to_target(*cell) for cell in cells], dtype=object)
    place = list(table.columns).index("rounds_to_target")
    goals = of.runs.groupby(_METHOD, sort=True)["target"].agg(_goal).to_numpy()
    table.insert(place, "target", goals)
    counts = [f"{n} of {seeds}" for n, seeds in zip(reached, table["seeds"], strict=True)]
    table.insert(place + 1, "reached", counts)
    return table


def _goal(targets: pd.Series) -> str:
    """The target, or from which to which where seeds have their own."""
    texts = sorted({text for text in targets if text != UNKNOWN}) or [UNKNOWN]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1].rpartition(' ')[2]}"


def _to_target(value: Spread, reached: int, seeds: int) -> Spread | str:
    if not reached:
        return NOT_REACHED if seeds else UNKNOWN
    return replace(value, missing=0)  # The column `reached` says it.


def fairness(of: Compared) -> pd.DataFrame:
    """How accuracy on own test splits spreads over clients after the last evaluated round.

    10th percentile, worst client, standard deviation (n in the denominator) and Jain's index of each
    run, over its seeds; clients that never trained are among them where the panel has them.
    """
    values = clients.final(of.results, of.rounds, known=of.own).groupby("run_id")[clients.ACCURACY]
    rows = {run_id: _fairness(own.to_numpy(np.float64)) for run_id, own in values}
    names = ["clients_evaluated", "p10", "worst_client", "std_over_clients", "jain_index"]
    return _a_row_a_method(of, pd.DataFrame.from_dict(rows, orient="index", columns=names))


def _fairness(values: Doubles) -> tuple[float, ...]:
    p10 = float(np.percentile(values, 10))
    spread = float(values.std())
    return float(len(values)), p10, float(values.min()), spread, clients.jain(values)


def cost(of: Compared) -> pd.DataFrame:
    """What a run costs: bytes, FLOPs, simulated time (latency) and this machine's seconds by phase.

    TFLOP are 10^12 floating-point operations of local training, over all clients and rounds;
    `inference_flops_share` is what is kept for inference, of the dense network's, at the end;
    `simulated_s_a_round` is a round's latency on the clients' devices.
    """
    rounds = of.rounds.sort_values("round").groupby("run_id")
    means = rounds[["simulated_seconds", *PHASES]].mean()
    numbers = of.figures("MB_up", "MB_down")
    numbers["TFLOP"] = _flops(of) / 10**12
    numbers["inference_flops_share"] = rounds[FLOPS].last()
    numbers["simulated_s_a_round"] = means["simulated_seconds"]
    for phase in PHASES:
        numbers[f"{phase.removeprefix('seconds_')}_s_a_round"] = means[phase]
    numbers["seconds"] = of.figures("seconds")
    return _without_unknown(_a_row_a_method(of, numbers))


def _flops(of: Compared) -> pd.Series:
    """Of local training, by run id; not known where table clients lacks a round in which clients trained."""
    totals = clients.totals(of.results, ["flops"]).set_index("run_id")
    trained = of.rounds[of.rounds["participants"] > 0].groupby("run_id")["round"].nunique()
    return (
        totals["flops"]
        .astype(float)
        .where(totals["rounds"] >= trained.reindex(totals.index).fillna(0))
    )


def savings(of: Compared, baselines: Sequence[str] = ()) -> pd.DataFrame:
    """What each method saves against each baseline in its setting, paired by seed.

    A saving is 1 - own / baseline's: 0.5 is half of it, a negative one costs more. Those to the target
    are over the seeds in which both reach it, and say in how many of how many. The gain in accuracy is
    the difference of the final own-split accuracies.

    Args:
        of: the runs.
        baselines: algorithms or labels that are compared with, or none: see `opponents`.

    Raises:
        LoadError: a baseline that no run is of.
    """
    against = opponents(of, baselines)
    wide = {name: of.paired(name) for name in (*_SAVINGS.values(), OWN_ACCURACY)}
    rows = []
    for key, within in wide["MB"].groupby(level=SETTING, sort=True):
        setting = dict(zip(SETTING, key, strict=True))
        here = {name: table.loc[within.index] for name, table in wide.items()}
        for own, base in permutations(within.dropna(axis="columns", how="all").columns, 2):
            if base in against:
                saved = _saved(_column(here, own), _column(here, base))
                rows.append({**setting, "method": own, "against": base, **saved})
    if not rows:
        return nothing("a baseline and another method that finished")
    return _trimmed(pd.DataFrame(rows), of.runs)


def opponents(of: Compared, baselines: Sequence[str] = ()) -> set[str]:
    """The methods that others are compared with.

    Those of the baselines; without any, all methods, or FedAvg's if there are over `MOST_PAIRED`: the
    pairs of a search's 200 trials are 39,800. FedAvg's are left out if they are as many.

    Args:
        of: the runs.
        baselines: algorithms or labels.

    Raises:
        LoadError: a baseline that no run is of.
    """
    check_methods(of.runs, baselines, "baseline")
    runs = of.finished
    labels = set(runs["label"])
    if baselines:
        return set(runs.loc[runs[["algorithm", "label"]].isin(baselines).any(axis=1), "label"])
    fedavg = set(runs.loc[runs["algorithm"] == "fedavg", "label"])
    return next((some for some in (labels, fedavg) if len(some) <= MOST_PAIRED), set())


_SAVINGS = {
    "bytes_saved": "MB",
    "bytes_to_target_saved": "MB_to_target",
    "rounds_to_target_saved": "rounds_to_target",
}


def _column(wide: Mapping[str, pd.DataFrame], label: str) -> dict[str, Doubles]:
    """What one method is compared by, by seed; NaN where it has none."""
    return {name: table[label].to_numpy(np.float64) for name, table in wide.items()}


def _saved(own: Mapping[str, Doubles], base: Mapping[str, Doubles]) -> dict[str, object]:
    """The savings of one method against one baseline."""
    both = ~np.isnan(own["MB"]) & ~np.isnan(base["MB"])
    if not both.any():
        return {"seeds": 0} | dict.fromkeys(_SAVINGS, "no common seed")
    row: dict[str, object] = {"seeds": int(both.sum())}
    for name, column in _SAVINGS.items():
        row[name] = _saving(own[column][both], base[column][both])
    return row | {"own_accuracy_gain": spread((own[OWN_ACCURACY] - base[OWN_ACCURACY])[both])}


def _saving(own: Doubles, base: Doubles) -> Spread | str:
    """1 - own / base by seed, or why there is none; NaN is a target that is not reached."""
    if np.isnan(base).all():
        return f"baseline {NOT_REACHED}"
    if np.isnan(own).all():
        return NOT_REACHED
    ratios = own / np.where(base > 0, base, np.nan)
    if np.isnan(own + base).all():
        return f"{NOT_REACHED} by both in any seed"
    if (base == 0).any():
        return "baseline sent nothing"
    return spread(1 - ratios)


def _a_row_a_method(of: Compared, numbers: pd.DataFrame) -> pd.DataFrame:
    """Means and deviations over the seeds of each setting and method; unfinished runs are counted.

    Args:
        of: the runs.
        numbers: of the runs, by run id.
    """
    runs = of.runs.assign(
        seeds=of.runs["seed"].where(of.runs["status"] == FINISHED),
        incomplete=of.runs["status"] == INCOMPLETE,
        unfinished=~of.runs["status"].isin([FINISHED, INCOMPLETE]),
    )
    counted = {"seeds": "nunique", "unfinished": "sum", "incomplete": "sum"}
    table = runs.groupby(_METHOD, sort=True).agg(counted)
    seeds = of.seeds(numbers)
    places = seeds.groupby(_METHOD).indices
    nobody = np.array([], int)
    for name in numbers.columns:
        column = seeds[name].to_numpy(np.float64)
        cells = [spread(column[places.get(key, nobody)]) for key in table.index]
        table[name] = pd.Series(cells, table.index, dtype=object)
    return _trimmed(table.reset_index().rename(columns={"label": "method"}), of.runs)


def _trimmed(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Without the columns of the setting that say the same of all runs, and counts of no runs."""
    idle = [name for name in SETTING if name not in ALWAYS and runs[name].nunique() == 1]
    idle += [c for c in ("unfinished", "incomplete") if c in table and not table[c].any()]
    return table.drop(columns=idle)


def _without_unknown(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns of means of nothing at all, such as times of runs without devices."""

    def is_known(column: pd.Series) -> bool:
        return any(not isinstance(value, Spread) or value.n for value in column)

    return table[[name for name in table.columns if is_known(table[name])]]
