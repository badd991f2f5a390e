"""The trials of a search as its results tell them: what each reached, and which none other beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from spatl_ray.errors import ConfigError
from spatl_ray.results.reader import read_rounds, read_run
from tune.book import FAILED, Entry
from tune.objectives import FIGURES, ROUNDS, figures
from tune.study import Study
from tune.trainable import evaluated, recorded_run


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        entry: of the book.
        status: of its run; "not begun" without one.
        rounds: that it trained.
        figures: after its last evaluation; empty if there was none.
    """

    entry: Entry
    status: str
    rounds: int
    figures: Mapping[str, float]


def outcomes(study: Study, entries: Sequence[Entry]) -> list[Outcome]:
    """What the trials came to.

    Raises:
        ResultsError: rows that cannot be read.
    """
    return [_outcome(study, entry) for entry in entries]


def _outcome(study: Study, entry: Entry) -> Outcome:
    try:
        experiment = study.experiment(entry.trial, entry.point)
    except ConfigError:
        return Outcome(entry, FAILED, 0, {})
    row = recorded_run(experiment)
    if row is None:
        return Outcome(entry, FAILED if entry.status == FAILED else "not begun", 0, {})
    told = evaluated(experiment)
    folder = Path(experiment.results.folder)
    rounds = len(read_rounds(folder, experiment.run_id))
    status = str(read_run(folder, experiment.run_id)["status"])
    return Outcome(entry, status, rounds, figures(told[-1]) if told else {})


def front(study: Study, found: Sequence[Outcome]) -> list[Outcome]:
    """The Pareto front: trials that no other one beats in one objective and equals in the rest."""
    known = [each for each in found if _scores(study, each) is not None]
    return [a for a in known if not any(_beats(study, b, a) for b in known)]


def trial_table(study: Study, found: Sequence[Outcome]) -> Table:
    """All trials, the best ones marked."""
    best = front(study, found)
    table = Table(title=f"search {study.sweep_id}")
    for heading in ("trial", "status", ROUNDS, *study.objectives, "point", ""):
        table.add_column(heading, justify="left" if heading == "point" else "right")
    for each in found:
        told = [_shown(each.figures.get(name)) for name in study.objectives]
        mark = "best" if each in best else ""
        point = ", ".join(
            f"{_last(key)} {_shown(value)}" for key, value in each.entry.point.items()
        )
        table.add_row(each.entry.trial, each.status, str(each.rounds), *told, point, mark)
    return table


def _scores(study: Study, outcome: Outcome) -> list[float] | None:
    """What it reached, larger being better; None if something was not measured."""
    signs = [1 if FIGURES[name].mode == "max" else -1 for name in study.objectives]
    values = [outcome.figures.get(name, math.nan) for name in study.objectives]
    if any(math.isnan(value) for value in values):
        return None
    return [sign * value for sign, value in zip(signs, values, strict=True)]


def _beats(study: Study, one: Outcome, other: Outcome) -> bool:
    a, b = _scores(study, one), _scores(study, other)
    if a is None or b is None:
        return False
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))


def _last(key: str) -> str:
    """The last words of a key's fields."""
    return "/".join(path.rpartition(".")[2] for path in key.split(", "))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return "-" if value is None else str(value)
