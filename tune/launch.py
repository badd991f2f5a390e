"""Runs the trials of a search in Ray Tune."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Before Ray Tune is imported, which reads them once.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the tables hold all of it
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # the book is what is gone on from
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")

from ray import tune as ray_tune

from spatl_ray.config import Experiment
from tune.book import FAILED, Book, Entry, number_of
from tune.progress import Progress
from tune.resources import at_once, bundles, cluster
from tune.schedulers import scheduler
from tune.searchers import BookedSearcher, booked_searcher, drawn_points
from tune.study import PBT, Study
from tune.trainable import Plan, TrialRun


@dataclass(frozen=True)
class Launch:
    """How trials are run; none of it changes what they are.

    Attributes:
        trials: how many there are to be, with those that were begun before.
        concurrent: at once, or None for as many as the cluster holds; None with PBT.
        address: of a running Ray cluster, or None to start Ray here.
        retries: whether trials that failed in an earlier process are run again.
        max_failures: how often a trial is begun again in this one.
    """

    trials: int
    concurrent: int | None = None
    address: str | None = None
    retries: bool = False
    max_failures: int = 1


@dataclass(frozen=True)
class _Source:
    """Where Tune takes the trials from.

    Attributes:
        samples: that it draws.
        space: of its own variants, for a scheduler that takes no searcher.
        numbers: of those.
        searcher: or this.
    """

    samples: int
    space: dict[str, Any]
    numbers: tuple[int, ...] = ()
    searcher: BookedSearcher | None = None


def run_trials(study: Study, book: Book, experiment: Experiment, launch: Launch) -> None:
    """Run what is missing of a search; its end is told to the book.

    Args:
        study: the search.
        book: what was begun before.
        experiment: of the trials, for the resources that each takes.
        launch: how.

    Raises:
        EngineError: Ray cannot start, or holds no trial.
        ResultsError: the book is damaged.
        KeyboardInterrupt: Ctrl-C; Tune itself has ended what ran, and only returns.
    """
    entries = book.entries()
    book.check(study.ranges, entries)
    source = (_variants if study.scheduler == PBT else _searched)(study, book, entries, launch)
    if source.samples < 1:
        return
    progress = Progress(book, source.numbers, max(launch.trials, len(entries)))
    plan = Plan(study, book.folder, source.numbers, tuple(sys.path), Path.cwd())
    with cluster(launch.address) as there:
        trainable = ray_tune.with_resources(
            ray_tune.with_parameters(TrialRun, plan=plan),
            ray_tune.PlacementGroupFactory(bundles(experiment)),
        )
        ray_tune.Tuner(
            trainable,
            param_space=source.space,
            tune_config=ray_tune.TuneConfig(
                search_alg=source.searcher,
                scheduler=scheduler(study),
                num_samples=source.samples,
                max_concurrent_trials=_alive(study, launch, partial(at_once, experiment, there)),
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                name="ray",
                storage_path=str(book.folder),
                verbose=0,
                checkpoint_config=ray_tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=ray_tune.FailureConfig(max_failures=launch.max_failures),
                callbacks=[progress],
            ),
        ).fit()
    shutil.rmtree(book.folder / "packs", ignore_errors=True)  # only this process knows of them
    if progress.ended < (len(source.numbers) or source.samples):
        raise KeyboardInterrupt


def _alive(study: Study, launch: Launch, held: Callable[[], int]) -> int | None:
    """How many trials have begun and not ended; of PBT all: it compares those only, and lets them take turns.

    Args:
        study: the search.
        launch: how it is run.
        held: how many trials the cluster holds at once; not asked where a number is given, for which a
            cluster that grows may still have to.
    """
    return None if study.scheduler == PBT else launch.concurrent or held()


def _searched(study: Study, book: Book, entries: Sequence[Entry], launch: Launch) -> _Source:
    """A searcher's suggestions."""
    failed = 0 if launch.retries else sum(entry.status == FAILED for entry in entries)
    samples = max(launch.trials, len(entries)) - failed
    return _Source(samples, {}, searcher=booked_searcher(study, book, entries, launch.retries))


def _variants(study: Study, book: Book, entries: Sequence[Entry], launch: Launch) -> _Source:
    """Drawn points as Tune's own variants."""
    last = max((number_of(entry.trial) for entry in entries), default=-1)
    drawn = drawn_points(study, entries, max(launch.trials, last + 1))
    kept = [entry for entry in drawn if entry.status != FAILED or launch.retries]
    for entry in kept:
        book.write(entry)
    points = [dict(entry.point) for entry in kept]
    numbers = tuple(number_of(entry.trial) for entry in kept)
    return _Source(min(1, len(kept)), {"point": ray_tune.grid_search(points)}, numbers)
