"""Trials of a search without Ray: Tune's class Trainable, stepped by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from identity import everything, small

from spatl_ray.config import Experiment
from tune.study import Study
from tune.trainable import Plan, TrialRun

SPACE = "training.lr: {loguniform: [1e-3, 1e-1]}"
ROUNDS = 4


def study_of(folder: Path, scheduler: str = "none", space: str = SPACE, **fields: Any) -> Study:
    """Four rounds of SCAFFOLD on the digits, evaluated after every one."""
    model = {"name": "mlp", "options": {"hidden": [16]}}
    fields = {"rounds": ROUNDS, "model": model, "engine": {"backend": "serial"}, **fields}
    experiment = small(folder, fields.pop("algorithm", {"name": "scaffold"}), **fields)
    return Study(
        sweep_id="study",
        raw=experiment.model_dump(mode="json"),
        overrides=(),
        space=space,
        objectives=("accuracy", "bytes"),
        search="tpe",
        scheduler=scheduler,
        seed=0,
        grace=1,
        reduction=3.0,
        most=ROUNDS,
    )


def trial_of(study: Study, folder: Path, trial: str, lr: float = 0.05) -> TrialRun:
    """A trial, as Tune's actor holds it."""
    plan = Plan(study, folder / "tune" / study.sweep_id, (), (), Path.cwd())

    class Bound(TrialRun):
        def setup(self, config: Mapping[str, Any]) -> None:  # type: ignore[override]
            TrialRun.setup(self, config, plan)

    return Bound({"point": point(trial, lr)})


def point(trial: str, lr: float = 0.05) -> dict[str, Any]:
    """Where a trial is."""
    return {"training.lr": lr, "trial": trial}


def to_end(trial: TrialRun) -> list[dict[str, Any]]:
    """All results that are to come."""
    results = [trial.train()]
    while not results[-1]["done"]:
        results.append(trial.train())
    return results


def numbers(experiment: Experiment) -> dict[str, Any]:
    """All of a run that must not depend on how it went on: not its name, and no history."""
    found = everything(experiment)
    return {
        name: each for name, each in found.items() if name.split(".")[0] not in ("runs", "events")
    }
