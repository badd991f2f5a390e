"""One row a method and setting, over its seeds: accuracy, cost to a target, savings, fairness, cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import clients
from analysis.formats import UNKNOWN, Spread, nothing, spread
from analysis.load import LoadError, Results, load
from analysis.methods import RUN_COLUMNS, SETTING, tagged
from analysis.metrics import PHASES, own_split
from analysis.summary import NOT_REACHED, common_target, load_rounds, summarise

ALWAYS = ["dataset", "partition", "model"]
"""What of a setting every table shows; the rest is shown where it differs."""

OWN_ACCURACY, GLOBAL_ACCURACY = "final_own_test_accuracy", "final_global_test_accuracy"


@dataclass(frozen=True)
class Compared:
    """What the tables are made of.

    Attributes:
        results: where everything else is read.
        runs: a row a run, tagged, with its figures: see `summarise`. The target is each setting's own,
            unless one was given.
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
        return self.runs[self.runs["status"] == "finished"]


def compared(results: Results, target: float | None = None, metric: str | None = None) -> Compared:
    """Read what the tables need.

    Args:
        results: a results folder, or several.
        target: the value of `metric` to reach, or None: in each setting the worst of its finished
            runs' best values.
        metric: a column of rounds; None: the own-split accuracy.

    Raises:
        LoadError: the folder cannot be read, or has no rounds or no such number.
    """
    runs = tagged(load(results, "runs", RUN_COLUMNS))
    rounds = load_rounds(results, metric)
    own = own_split(rounds)
    parts = []
    for _, alike in runs.groupby(SETTING, sort=True):
        within = rounds[rounds["run_id"].isin(alike["run_id"])]
        finished = within[within["run_id"].isin(alike.loc[alike["status"] == "finished", "run_id"])]
        aim = common_target(finished, metric or own) if target is None else target
        figures = summarise(alike, within, aim, metric, own)
        new = [name for name in figures.columns if name not in alike.columns]
        parts.append(alike.merge(figures[["run_id", *new]], on="run_id"))
    return Compared(results, pd.concat(parts, ignore_index=True), rounds, own)


def accuracy(of: Compared) -> pd.DataFrame:
    """Final and best accuracies: mean and standard deviation over seeds."""
    columns = [OWN_ACCURACY, GLOBAL_ACCURACY, "best_own_test_accuracy", "best_global_test_accuracy"]
    return _a_row_a_method(of, lambda runs: {name: spread(runs[name]) for name in columns})


def targets(of: Compared) -> pd.DataFrame:
    """Rounds, bytes and simulated seconds to the target, over those seeds that reach it."""
    columns = ["rounds_to_target", "MB_to_target", "simulated_seconds_to_target"]
    columns = [name for name in columns if name in of.runs]

    def figures(runs: pd.DataFrame) -> dict[str, object]:
        reached = runs[runs["rounds_to_target"] != NOT_REACHED]
        target = runs["target"].iloc[0] if len(runs) else UNKNOWN
        row: dict[str, object] = {"target": target, "reached": f"{len(reached)} of {len(runs)}"}
        return row | {name: _to_target(reached[name], len(runs)) for name in columns}

    return _a_row_a_method(of, figures)


def _to_target(reached: pd.Series, seeds: int) -> Spread | str:
    if not len(reached):
        return NOT_REACHED if seeds else UNKNOWN
    return spread(reached.astype(float))


def fairness(of: Compared) -> pd.DataFrame:
    """How accuracy on own test splits spreads over clients after the last evaluated round.

    10th percentile, worst client, standard deviation (n in the denominator) and Jain's index of each
    run, over its seeds; clients that never trained are among them where the panel has them.
    """
    values = clients.final(of.results, of.rounds, known=of.own).groupby("run_id")[clients.ACCURACY]
    names = ["p10", "worst_client", "std_over_clients", "jain_index"]
    rows = {run_id: _fairness(own.to_numpy(np.float64)) for run_id, own in values}

    def figures(runs: pd.DataFrame) -> dict[str, object]:
        known = [rows[run_id] for run_id in runs["run_id"] if run_id in rows]
        return {
            "clients_evaluated": spread(
                [len(values.get_group(r)) for r in runs["run_id"] if r in rows]
            ),
            **{name: spread([row[i] for row in known]) for i, name in enumerate(names)},
        }

    return _a_row_a_method(of, figures)


def _fairness(values: clients.Doubles) -> tuple[float, ...]:
    p10 = float(np.percentile(values, 10))
    return p10, float(values.min()), float(values.std()), clients.jain(values)


def cost(of: Compared) -> pd.DataFrame:
    """What a run costs: bytes, FLOPs, simulated time (latency) and this machine's seconds by phase.

    TFLOP are 10^12 floating-point operations of local training, over all clients and rounds;
    `inference_flops_share` is what is kept for inference, of the dense network's, at the end;
    `simulated_s_a_round` is a round's latency on the clients' devices.
    """
    columns = ["run_id", "round", "inference_flops_share_mean", "simulated_seconds", *PHASES]
    rounds = load(of.results, "rounds", columns).sort_values("round").groupby("run_id")
    means = rounds[["simulated_seconds", *PHASES]].mean()
    share = rounds["inference_flops_share_mean"].last()
    flops = clients.totals(of.results, ["flops"]).set_index("run_id")["flops"].astype(float)

    def figures(runs: pd.DataFrame) -> dict[str, object]:
        ids = list(runs["run_id"])
        row: dict[str, object] = {name: spread(runs[name]) for name in ("MB_up", "MB_down")}
        row["TFLOP"] = spread(flops.reindex(ids) / 10**12)
        row["inference_flops_share"] = spread(share.reindex(ids))
        row["simulated_s_a_round"] = spread(means["simulated_seconds"].reindex(ids))
        for phase in PHASES:
            row[f"{phase.removeprefix('seconds_')}_s_a_round"] = spread(means[phase].reindex(ids))
        return row | {"seconds": spread(runs["seconds"])}

    return _without_unknown(_a_row_a_method(of, figures))


def savings(of: Compared, baselines: Sequence[str] = ()) -> pd.DataFrame:
    """What each method saves against each baseline in its setting, paired by seed.

    A saving is 1 - own / baseline's: 0.5 is half of it, a negative one costs more. The gain in accuracy
    is the difference of the final own-split accuracies.

    Args:
        of: the runs.
        baselines: algorithms or labels that are compared with, or none for every other method.

    Raises:
        LoadError: a baseline that no run is of.
    """
    runs = of.finished
    known = set(of.runs["algorithm"]) | set(of.runs["label"])
    if unknown := [name for name in baselines if name not in known]:
        raise LoadError(
            f"baseline must be an algorithm or method of these runs, got {unknown[0]!r}; there are: "
            f"{', '.join(sorted(known))}"
        )
    rows = []
    for key, within in runs.groupby(SETTING, sort=True):
        groups = dict(list(within.groupby("label", sort=True)))
        for label, own in groups.items():
            for against, base in groups.items():
                names = {against, base["algorithm"].iloc[0]}
                if against != label and (not baselines or names & set(baselines)):
                    shown = dict(zip(SETTING, key, strict=True))
                    rows.append({**shown, "method": label, "against": against, **_saved(own, base)})
    return _trimmed(pd.DataFrame(rows), of.runs) if rows else nothing("a second method to compare")


def _saved(own: pd.DataFrame, base: pd.DataFrame) -> dict[str, object]:
    """The savings of one method against one baseline."""
    pairs = _by_seed(own).join(_by_seed(base).add_suffix("_base"), how="inner")
    if not len(pairs):
        return {"seeds": 0} | dict.fromkeys(_SAVINGS, "no common seed")
    row: dict[str, object] = {"seeds": len(pairs)}
    for name, column in _SAVINGS.items():
        row[name] = _saving(pairs[column], pairs[f"{column}_base"])
    gain = pairs[OWN_ACCURACY] - pairs[f"{OWN_ACCURACY}_base"]
    return row | {"own_accuracy_gain": spread(gain)}


_SAVINGS = {
    "bytes_saved": "MB",
    "bytes_to_target_saved": "MB_to_target",
    "rounds_to_target_saved": "rounds_to_target",
}


def _by_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """The figures that are compared; of several runs of a seed, the first."""
    numbers = runs.assign(MB=runs["MB_up"] + runs["MB_down"])
    return numbers.drop_duplicates("seed").set_index("seed")[[*_SAVINGS.values(), OWN_ACCURACY]]


def _saving(own: pd.Series, base: pd.Series) -> Spread | str:
    """1 - own / base over the pairs in which both are known, or why there is none."""
    if (base == NOT_REACHED).all():
        return f"baseline {NOT_REACHED}"
    if (own == NOT_REACHED).all():
        return NOT_REACHED
    both = (own != NOT_REACHED) & (base != NOT_REACHED)
    if not both.any():
        return f"{NOT_REACHED} by both in any seed"
    own, base = own[both].astype(float), base[both].astype(float)
    if not (base > 0).all():
        return "baseline sent nothing"
    return spread(1 - own / base)


def _a_row_a_method(
    of: Compared, figures: Callable[[pd.DataFrame], dict[str, object]]
) -> pd.DataFrame:
    """The figures of the finished runs of each setting and method; unfinished ones are counted."""
    rows = []
    for (*setting, label), runs in of.runs.groupby([*SETTING, "label"], sort=True):
        finished = runs[runs["status"] == "finished"]
        row = {**dict(zip(SETTING, setting, strict=True)), "method": label}
        row |= {"seeds": finished["seed"].nunique(), "unfinished": len(runs) - len(finished)}
        rows.append(row | figures(finished))
    return _trimmed(pd.DataFrame(rows), of.runs)


def _trimmed(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Without the columns of the setting that say the same of all runs, and a count of no runs."""
    idle = [name for name in SETTING if name not in ALWAYS and runs[name].nunique() == 1]
    if "unfinished" in table and not table["unfinished"].any():
        idle.append("unfinished")
    return table.drop(columns=idle)


def _without_unknown(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns of means of nothing at all, such as times of runs without devices."""

    def is_known(column: Iterable[object]) -> bool:
        return any(not isinstance(value, Spread) or value.n for value in column)

    return table[[name for name in table.columns if is_known(table[name])]]
