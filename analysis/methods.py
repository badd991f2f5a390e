"""Which runs are repetitions of each other, and what each method is called.

Runs are compared within a *setting*: data set, partition, model, clients, sample ratio and rounds. A
*method* is an algorithm with all other options of its config; its runs in a setting differ in their
seed only. Of several runs of one seed, the mean stands for the seed: seeds are what is counted.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.load import LoadError
from analysis.metrics import name_of

SETTING = ["dataset", "partition", "model", "clients", "sample_ratio", "rounds"]
RUN_COLUMNS = ["run_id", "status", "algorithm", "seed", *SETTING, "config", "sweep_id", "trial_id"]

FINISHED, INCOMPLETE = "finished", "incomplete"
"""Of the statuses: only the first is in means. The second is given by `judged`."""

_TRIAL = ["sweep_id", "trial_id"]

MOST_PARTS = 4
"""Options in a label, beyond which it has its trial or a number instead."""

WITH, WITHOUT = "with", "without"
"""An optional section that is there, and one that is null."""

_ASIDE = (
    *("seed", "name", "engine", "results", "checkpoints"),
    *("clients", "sample_ratio", "rounds", "partition"),
)
"""Sections of a config that are no option of a method: they change no number, or are the setting."""

_ASIDE_WITHIN = ("data.name", "data.root", "model.name", "algorithm.name")
_WORDS = {"clients": "{} clients", "sample_ratio": "ratio {}", "rounds": "{} rounds"}

Options = Mapping[str, str]
"""Field by its path, e.g. "algorithm.keep" -> "0.5"."""


def judged(runs: pd.DataFrame, rounds: pd.DataFrame) -> pd.DataFrame:
    """The runs, with status `INCOMPLETE` where one finished and rounds of it are not there.

    Such are runs of which only some files were copied. Running, interrupted (also by a search's
    scheduler) and failed ones keep their status.

    Args:
        runs: rows of table runs; column `rounds` is what a run was to do.
        rounds: rows of table rounds.
    """
    there = runs["run_id"].map(rounds.groupby("run_id")["round"].nunique()).fillna(0)
    lacking = (runs["status"] == FINISHED) & (there != runs["rounds"])
    return runs.assign(status=runs["status"].mask(lacking, INCOMPLETE))


def furthest(runs: pd.DataFrame, rounds: pd.DataFrame) -> pd.DataFrame:
    """One run a trial: the one that came furthest, a finished one before all others.

    Population-based training clones runs, so that a trial has several; runs of no trial all stay.

    Args:
        runs: rows of table runs, with sweep_id and trial_id.
        rounds: rows of table rounds.
    """
    last = runs["run_id"].map(rounds.groupby("run_id")["round"].max()).fillna(-1)
    ordered = runs.assign(is_done=runs["status"] == FINISHED, last=last)
    ordered = ordered.sort_values(["is_done", "last", "run_id"])
    is_trial = ordered[_TRIAL].notna().all(axis=1)
    is_passed = is_trial & ordered.duplicated(_TRIAL, keep="last")
    return runs.drop(index=ordered.index[is_passed])


def by_seed(rows: pd.DataFrame, whose: Sequence[str] = (), at: Sequence[str] = ()) -> pd.DataFrame:
    """One row a seed: the mean over the runs that repeat it, where all of them know the number.

    Args:
        rows: columns run_id, seed, `whose` and `at`; the others are numbers.
        whose: the columns that tell methods and settings apart.
        at: the columns that tell a run's rows apart, such as round.

    Returns:
        The rows in order of `whose`, seed and `at`, without run_id.
    """
    repeats = rows.groupby([*whose, "seed"])["run_id"].transform("nunique")
    groups = rows.assign(repeats=repeats).groupby([*whose, "seed", *at])
    numbers = [c for c in rows.columns if c not in ("run_id", "seed", *whose, *at)]
    is_whole = groups[numbers].count().eq(groups["repeats"].first(), axis=0)
    return groups[numbers].mean().where(is_whole).reset_index()


def tagged(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with three columns more.

    Args:
        runs: rows of table runs, with `RUN_COLUMNS`.

    Returns:
        With `method`, equal for repetitions; `label`, what it is called, with the options in which methods
        of its algorithm differ within a setting, but for what over half of them share (so methods of two
        settings have one label if, say, only their numbers of samples differ); and `setting`, in words:
        what differs between settings.

    Raises:
        LoadError: a config that is no JSON object.
    """
    options = [options_of(run) for run in runs.to_dict("records")]
    methods = [
        json.dumps([algorithm, sorted(of.items())])
        for algorithm, of in zip(runs["algorithm"], options, strict=True)
    ]
    trials = dict(zip(methods, _trial_names(runs), strict=True))
    places = list(runs[SETTING].itertuples(index=False, name=None))
    labels = _labels(runs["algorithm"], methods, options, places, trials)
    return runs.assign(
        method=methods, label=[labels[m] for m in methods], setting=settings_in_words(runs)
    )


def _trial_names(runs: pd.DataFrame) -> pd.Series:
    """What each run's trial is called: with its search, where the runs are of several."""
    searches = runs.loc[runs["trial_id"].notna(), "sweep_id"].nunique()
    return runs["trial_id"] + " of " + runs["sweep_id"] if searches > 1 else runs["trial_id"]


def options_of(run: Mapping[Hashable, Any]) -> Options:
    """A run's options, flat: everything of its config that belongs to the method."""
    sections = {k: v for k, v in config_of(run).items() if k not in _ASIDE}
    return {k: v for k, v in _flat(sections, "") if k not in _ASIDE_WITHIN}


def config_of(run: Mapping[Hashable, Any]) -> dict[str, Any]:
    """A run's config.

    Raises:
        LoadError: it is no JSON object.
    """
    try:
        config = json.loads(run["config"])
    except (ValueError, TypeError) as error:
        raise LoadError(
            f"the config of run {run['run_id']!r} is no JSON object: {error}"
        ) from error
    if not isinstance(config, dict):
        raise LoadError(f"the config of run {run['run_id']!r} is no JSON object, got {config!r}")
    return config


def _flat(value: object, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else str(name))
    else:
        yield path, f"{value:g}" if isinstance(value, float) else _plain(value)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _labels(
    algorithms: Iterable[str],
    methods: Iterable[str],
    options: Iterable[Options],
    places: Iterable[Hashable],
    trials: Mapping[str, str | None],
) -> dict[str, str]:
    """What each method is called; no two of a setting are called the same.

    Args:
        algorithms, methods, options, places: of each run; the last is its setting.
        trials: the methods' trials, if any.
    """
    of: dict[str, dict[str, Options]] = defaultdict(dict)
    together: dict[str, dict[Hashable, list[Options]]] = defaultdict(lambda: defaultdict(list))
    for algorithm, method, chosen, place in zip(algorithms, methods, options, places, strict=True):
        of[algorithm][method] = chosen
        together[algorithm][place].append(chosen)
    labels: dict[str, str] = {}
    for algorithm, variants in of.items():
        within = {
            p for some in together[algorithm].values() for p in differing_options(_folded(some))
        }
        folded = _folded(list(variants.values()))
        differing = [path for path in differing_options(folded) if path in within]
        parts = _parts(folded, differing)
        for number, (method, own) in enumerate(zip(variants, parts, strict=True), 1):
            if len(own) > MOST_PARTS:
                trial = trials[method]
                own = [f"trial {trial}" if isinstance(trial, str) else f"no. {number}"]
            labels[method] = ", ".join([name_of(algorithm), *own])
    return _apart(labels, algorithms, methods, places)


def _apart(
    labels: Mapping[str, str],
    algorithms: Iterable[str],
    methods: Iterable[str],
    places: Iterable[Hashable],
) -> dict[str, str]:
    """Labels with a number where those of several algorithms, or of methods of one setting, are alike.

    Own algorithms may have classes of one name, and the clones of a trial share its name.
    """
    called: dict[str, list[str]] = defaultdict(list)
    here: dict[tuple[Hashable, str], set[str]] = defaultdict(set)
    of: dict[str, set[str]] = defaultdict(set)
    for algorithm, method, place in zip(algorithms, methods, places, strict=True):
        label = labels[method]
        here[place, label].add(method)
        of[label].add(algorithm)
        if method not in called[label]:
            called[label].append(method)
    alike = {label for (_, label), found in here.items() if len(found) > 1}
    alike |= {label for label, found in of.items() if len(found) > 1}
    return {
        method: f"{label} ({called[label].index(method) + 1})" if label in alike else label
        for method, label in labels.items()
    }


def _folded(variants: Sequence[Options]) -> list[Options]:
    """The options, with a section that some lack as one option of the others: `WITH` or `WITHOUT`.

    Those lack it that have null there, or nothing. What is in the section stays beside it where those that
    have it differ in it.
    """
    folded: list[Options] = [dict(options) for options in variants]
    sections = {start for options in variants for path in options for start in _starts(path)}
    for section in sorted(sections, key=len):
        inner = [{p: v for p, v in o.items() if section in _starts(p)} for o in folded]
        others = {o.get(section, "null") for o, own in zip(folded, inner, strict=True) if not own}
        given = [own for own in inner if own]
        if others != {"null"} or not given:
            continue
        constant = {p for own in given for p in own if len({each.get(p) for each in given}) == 1}
        folded = [
            {path: value for path, value in options.items() if path not in constant}
            | {section: WITH if own else WITHOUT}
            for options, own in zip(folded, inner, strict=True)
        ]
    return folded


def _starts(path: str) -> set[str]:
    """The sections that an option is in: a and a.b of a.b.c."""
    ends = [end for end, letter in enumerate(path) if letter == "."]
    return {path[:end] for end in ends}


def _parts(variants: Sequence[Options], differing: Sequence[str]) -> list[list[str]]:
    """What the label of each variant says: its options, but for those that over half of them share."""
    names = _short(differing)
    distinct = {tuple(options.get(path) for path in differing) for options in variants}
    usual = {}
    for path, values in zip(differing, zip(*distinct, strict=True), strict=True):
        value, count = Counter(values).most_common(1)[0]
        if 2 * count > len(distinct):
            usual[path] = value
    return [
        [
            _in_words(names[path], options.get(path))
            for path in differing
            if not _is_usual(path, options, usual)
        ]
        for options in variants
    ]


def _is_usual(path: str, options: Options, usual: Mapping[str, str | None]) -> bool:
    """Whether a label leaves an option out: most have it so, or its section is null and says so itself."""
    if path in usual and options.get(path) == usual[path]:
        return True
    return any(options.get(section) == WITHOUT for section in _starts(path))


def _in_words(name: str, value: str | None) -> str:
    if value in (WITH, WITHOUT):
        return f"{value} {name}"
    return f"{name} {'absent' if value is None else value}"


def differing_options(variants: Sequence[Options]) -> list[str]:
    """The fields in which methods differ, in the order of the config."""
    paths = dict.fromkeys(path for options in variants for path in options)
    return [path for path in paths if len({options.get(path) for options in variants}) > 1]


def _short(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or all of it where two end alike."""
    ends = Counter(path.rpartition(".")[2] for path in paths)
    return {p: e if ends[e := p.rpartition(".")[2]] == 1 else p for p in paths}


def settings_in_words(runs: pd.DataFrame) -> list[str]:
    """Each run's setting by what differs between settings; "" if there is only one."""
    differing = [name for name in SETTING if runs[name].nunique() > 1]
    return [
        ", ".join(_WORDS.get(name, "{}").format(_plain_number(run[name])) for name in differing)
        for run in runs.to_dict("records")
    ]


def _plain_number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
