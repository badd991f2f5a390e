"""Search an experiment's fields with Ray Tune.

python tune/search.py EXPERIMENT [key=value ...] [--space FILE] [--trials N] [--scheduler asha] [--resume]
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:
    # Instead of this folder, whose modules have names of their own only within the package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.text import Text

from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from, read_mapping
from spatl_ray.overrides import overridden
from tune.book import FAILED, Book, Entry
from tune.command import at_least_0, carried_out, console, positive, seed
from tune.fields import read_text
from tune.limits import grace_of, most_of
from tune.objectives import FIGURES, check_objectives
from tune.space import Space, check_space, default_space, parse_space
from tune.study import PBT, Study, as_trial, check_branches

SEARCHES = ("tpe", "random", "grid")
SCHEDULERS = ("none", "asha", "asha-bytes", "median", PBT)
TRIALS = 20
"""Of a search that is not told how many."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = _parser().parse_intermixed_args(argv)
    sys.path.append(os.getcwd())  # own parts of an experiment; last, so that they hide nothing
    return carried_out(lambda: search(arguments, console()), "--resume goes on")


def search(arguments: argparse.Namespace, console: Console) -> int:
    """Check everything, run the trials, tell what they came to."""
    study, experiment = study_of(arguments)
    _prepare(experiment)
    folder = Path(experiment.results.folder).absolute() / "tune" / study.sweep_id
    book = Book(folder)
    with book.open(study, arguments.resume):
        return _searched(study, book, experiment, arguments, console)


def _searched(
    study: Study,
    book: Book,
    experiment: Experiment,
    arguments: argparse.Namespace,
    console: Console,
) -> int:
    asked = len(study.ranges.grid()) if study.search == "grid" else arguments.trials
    trials = book.asked(asked, TRIALS)
    console.print(
        Text(f"search {study.sweep_id}: {trials} trials, results in {experiment.results.folder}")
    )
    # Here, not at the top: what is refused is refused before Ray is imported.
    from tune.launch import Launch, run_trials
    from tune.trainable import close_results
    from tune.trials import outcomes, trial_table

    launch = Launch(
        trials,
        arguments.concurrent,
        arguments.address,
        arguments.retry_failed,
        arguments.max_failures,
    )
    try:
        run_trials(study, book, experiment, launch)
    finally:
        entries = book.entries()
        close_results(*_runs(study, entries))
    found = outcomes(study, entries)
    console.print(trial_table(study, found))
    console.print(Text(f"{sum(each.rounds for each in found)} rounds in {len(found)} trials"))
    failed = [entry for entry in entries if entry.status == FAILED]
    for entry in failed:
        console.print(Text(f"{entry.trial} failed: {entry.error}"))
    return 1 if failed else 0


def study_of(arguments: argparse.Namespace) -> tuple[Study, Experiment]:
    """What the command line asks for, checked.

    Raises:
        ConfigError: one line a fault; nothing has been written.
    """
    if arguments.search == "grid" and arguments.scheduler == PBT:
        raise ConfigError("--search must not be grid with --scheduler pbt, which draws its points")
    if arguments.concurrent and arguments.scheduler == PBT:
        raise ConfigError(
            "--concurrent must not be given with --scheduler pbt, whose trials are one population and take "
            "turns: engine.num_cpus says how many run at once"
        )
    overrides = tuple(arguments.overrides)
    raw = dict(read_mapping(arguments.source))
    source = arguments.space or default_space(experiment_from(overridden(raw, overrides)))
    text = read_text(source)
    space = parse_space(text, str(source))
    objectives = tuple(arguments.objective or ("accuracy", "bytes"))
    experiment = _checked(space, objectives, raw, overrides)
    if arguments.scheduler == PBT:
        check_branches(space, experiment)
    if arguments.search == "grid":
        space.grid()
    most = arguments.most or most_of(arguments.scheduler, experiment, space, raw, overrides)
    grace = arguments.grace or grace_of(arguments.scheduler, experiment, most)
    if grace > most:
        raise ConfigError(f"--grace must be at most {most}, got {grace}")
    if not 1 < arguments.reduction < math.inf:
        raise ConfigError(f"--reduction must be greater than 1, got {arguments.reduction:g}")
    name = arguments.name or f"{experiment.name}-{experiment.algorithm.name.rpartition(':')[2]}"
    _check_name(name)
    study = Study(
        sweep_id=name,
        raw=raw,
        overrides=overrides,
        space=text,
        objectives=objectives,
        search=arguments.search,
        scheduler=arguments.scheduler,
        seed=arguments.seed,
        grace=grace,
        reduction=arguments.reduction,
        most=most,
    )
    return study, experiment


def _checked(
    space: Space, objectives: Sequence[str], raw: Mapping[str, Any], overrides: tuple[str, ...]
) -> Experiment:
    """The experiment with what is the same in all trials, if all trials can run and be judged."""
    check_space(space, raw, overrides)
    given = overridden(raw, [*overrides, *space.fixed_texts()])
    experiment = as_trial(experiment_from(given), given)
    check_objectives(objectives, experiment)
    check_space(space, raw, overrides, partial(check_objectives, objectives))
    return experiment


def _check_name(name: str) -> None:
    """Refuse a search's name that is no folder's."""
    if not re.fullmatch(r"[\w.-]+", name) or name in (".", ".."):
        raise ConfigError(
            f'--name must be made of letters, digits, "_", "." and "-", and not be . or .., got {name!r}'
        )


def _prepare(experiment: Experiment) -> None:
    """Load data and build the model once, so that what is wrong shows before any trial."""
    from spatl_ray.engine.checks import check_timeout
    from spatl_ray.engine.prepare import prepare
    from tune.resources import bundles

    bundles(experiment)  # refuses what cannot be placed
    check_timeout(experiment, is_main=False)  # a trial's run has a thread of its own
    prepare(experiment)


def _runs(study: Study, entries: Sequence[Entry]) -> tuple[Path, list[str]]:
    """The results folder, and the search's runs that are in it."""
    from spatl_ray.results.reader import read_run, run_ids

    if not entries:
        return Path(), []
    folder = Path(study.experiment(entries[0].trial, entries[0].point).results.folder)
    own = [run_id for run_id in run_ids(folder) if run_id.startswith(f"{study.sweep_id}.t")]
    return folder, [
        run_id for run_id in own if read_run(folder, run_id)["sweep_id"] == study.sweep_id
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python tune/search.py", description="Search an experiment's fields with Ray Tune."
    )
    add = parser.add_argument
    add("source", metavar="EXPERIMENT", help="a YAML file, or a preset's name")
    add("overrides", metavar="key=value", nargs="*", help="of the experiment, for all trials")
    add(
        "--space",
        metavar="FILE",
        type=Path,
        help="YAML of ranges; by default tune/spaces/ALGORITHM.yaml",
    )
    add("--search", choices=SEARCHES, default="tpe", help="where the next trial is (tpe)")
    add("--scheduler", choices=SCHEDULERS, default="none", help="which trials go on (none: all)")
    objectives = ", ".join(f"{name} ({figure.mode})" for name, figure in FIGURES.items())
    add(
        "--objective",
        action="append",
        metavar="NAME",
        help=f"once or more: {objectives}; by default accuracy and bytes; schedulers take the first",
    )
    add(
        "--trials",
        metavar="N",
        type=positive,
        help=f"how many ({TRIALS}, or those of the search that goes on); a grid has its own number",
    )
    add(
        "--concurrent",
        metavar="N",
        type=positive,
        help="at once; by default what the cluster holds; not with pbt, whose trials take turns",
    )
    add("--name", metavar="ID", help="of the search; by default EXPERIMENT-ALGORITHM")
    add("--seed", metavar="N", type=seed, default=0, help="of the points (0)")
    add(
        "--grace",
        metavar="N",
        type=positive,
        help="rounds (asha-bytes: bytes) before a trial can be stopped; pbt: between two changes",
    )
    add(
        "--most",
        metavar="N",
        type=positive,
        help="rounds (asha-bytes: bytes) at which asha ends a trial",
    )
    add(
        "--reduction",
        metavar="F",
        type=float,
        default=3.0,
        help="asha goes on with one of so many (3)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with a search that broke off, or with more --trials",
    )
    add("--retry-failed", action="store_true", help="with --resume: run failed trials again")
    add(
        "--max-failures",
        metavar="N",
        type=at_least_0,
        default=1,
        help="how often a trial is begun again (1)",
    )
    add("--address", metavar="A", help="of a running Ray cluster; by default Ray is started here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
