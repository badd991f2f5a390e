"""How well clients that never trained are served, by what is fitted and by share of their data.

    python tests/benchmarks/newcomers.py cnn 0 1 2 3 4
    python tests/benchmarks/newcomers.py resnet20 0 1 2

trains SPATL (keep 0.5, shared predictor), FedAvg and FedPer on 16 of 20 clients of Fashion-MNIST (Dirichlet
0.5, 40 rounds of 2 epochs), and fits a model for each of the 4 others to a share of its training samples: the
predictor only (transfer), all of the received model (finetune), or all from the initial model (scratch, the
same for all methods). Epochs and learning rate of a fit are those of a grid that are best on the newcomers'
whole validation splits, taken together, for each method, mode and share alike; what is told is of their test
splits. It writes RESULTS/MODEL-SAMPLES-ROUNDS-SEED.parquet, a row a method, mode, share and newcomer, and a
table of all seeds beside them; what is there already is not done again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spatl_ray import run
from spatl_ray.algorithms.base import ClientView
from spatl_ray.config import Experiment
from spatl_ray.engine.evaluation import Evaluator
from spatl_ray.engine.finished import FinishedRun
from spatl_ray.engine.folders import model_file
from spatl_ray.experiments import experiment_from
from spatl_ray.federation.availability import newcomers
from spatl_ray.training.evaluate import Score

METHODS: Mapping[str, dict[str, Any]] = {
    "SPATL": {"name": "spatl", "keep": 0.5, "shared_predictor": True},
    "FedAvg": {"name": "fedavg"},
    "FedPer": {"name": "fedper"},
}
LR = {"SPATL": 0.01, "FedAvg": 0.02, "FedPer": 0.02}
"""Of the federation's training. At 0.02 SPATL's control variates make the cnn diverge here (seed 0)."""

MODELS: Mapping[str, dict[str, Any]] = {
    "cnn": {"name": "cnn", "options": {"width": 8, "hidden": 32}},
    # Not batch norm: of a few samples, its statistics say little.
    "resnet20": {"name": "resnet20", "options": {"width": 8, "norm": "group"}},
}
SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)
RATES = (0.003, 0.01, 0.03, 0.1)
EPOCHS, FEW = (5, 20, 80), 0.2
"""The longest fits are tried up to this share of the data only: beyond, they take longest and gain least."""

ALONE = "alone"
"""The method of fits from scratch."""

Scores = tuple[Score, Score]
"""On a newcomer's validation and test splits."""


@dataclass(frozen=True)
class Setting:
    """What all runs of a table have in common."""

    model: str
    samples: int
    rounds: int
    folder: Path

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.model}-{self.samples}-{self.rounds}"

    def experiment(self, method: str, seed: int) -> Experiment:
        """A method's run; each client has at least a fifth of the mean's samples."""
        least = self.samples // 20 // 5
        return experiment_from(
            {
                "name": "newcomers",
                "seed": seed,
                "rounds": self.rounds,
                "clients": 20,
                "sample_ratio": 0.8,
                "availability": {"name": "newcomers", "share": 0.2},
                "data": {
                    "name": "fashion_mnist",
                    "samples": self.samples,
                    "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
                },
                "partition": {"name": "dirichlet", "beta": 0.5, "min_size": least},
                "model": MODELS[self.model],
                "training": {"epochs": 2, "batch_size": 32, "lr": LR[method], "momentum": 0.9},
                "algorithm": METHODS[method],
                # Fits are scored on own splits; a forward pass over the global test set costs more.
                "evaluation": {"every": self.rounds, "client_global_samples": 1},
                "engine": {"backend": "serial"},
                "checkpoints": {"every": 0},
                "results": {"folder": str(self.folder / "runs"), "overwrite": True},
            }
        )


class Newcomers:
    """The newcomers of a run that has finished, or that is carried out first.

    Args:
        experiment: of the run.

    Attributes:
        rejected: updates of the run that did not count: where there are some, training diverged.
        views: what each newcomer receives after the last round.
    """

    def __init__(self, experiment: Experiment) -> None:
        if not model_file(experiment).exists():
            run(experiment)
        finished = FinishedRun(experiment.results.folder, experiment.run_id)
        self.experiment, self.worker = finished.experiment, finished.worker
        folder = Path(experiment.results.folder) / "clients" / f"run_id={experiment.run_id}"
        self.rejected = int((pd.read_parquet(folder)["status"] == "rejected").sum())
        new = newcomers(experiment.availability, experiment.clients, experiment.seed)
        views = [finished.client(client) for client in np.flatnonzero(new).tolist()]
        self.views: list[ClientView] = [view for view, _ in views]

    def received(self) -> list[Scores]:
        """Of the received model as it is, with the shared predictor if there is one."""
        evaluator, algorithm = self.worker.evaluator, self.worker.algorithm
        scores = []
        for view in self.views:
            model = algorithm.newcomer_model(view.received, view.state)
            of = (evaluator.score(model, view.client, split) for split in ("validation", "test"))
            scores.append(tuple(of))
        return scores

    def fitted(self, mode: str, share: float, epochs: int, lr: float) -> list[Scores]:
        """Of models that are fitted.

        Args:
            mode: transfer, finetune or scratch.
            share: of each newcomer's training samples.
            epochs, lr: of the fit.
        """
        fit = {"untrained": mode, "transfer_share": share}
        fit |= {"transfer_epochs": epochs, "transfer_lr": lr}
        options = self.experiment.evaluation.model_copy(update=fit)
        experiment = self.experiment.model_copy(update={"evaluation": options})
        blueprint = replace(self.worker.blueprint, experiment=experiment)
        evaluator = Evaluator(blueprint, self.worker.population, self.worker.trainer)
        found = [evaluator.client(view, trained=False)[0] for view in self.views]
        return [(each.local_validation, each.local_test) for each in found]

    def best(self, mode: str, share: float) -> dict[str, Any]:
        """The fit of the grid that is right most often on all newcomers' validation splits."""
        epochs = [e for e in EPOCHS if e < max(EPOCHS) or share <= FEW]
        tried = [(e, lr, self.fitted(mode, share, e, lr)) for e, lr in product(epochs, RATES)]
        chosen, rate, scores = max(tried, key=lambda each: _right([v for v, _ in each[2]]))
        return {"scores": scores, "epochs": chosen, "lr": rate}


def _right(scores: Sequence[Score]) -> int:
    """Right predictions in all."""
    return sum(score.correct for score in scores)


def rows_of(setting: Setting, seed: int) -> Iterator[dict[str, Any]]:
    """All methods, modes, shares and newcomers of a seed."""
    for method in METHODS:
        new = Newcomers(setting.experiment(method, seed))
        modes = ["transfer", "finetune"] + (["scratch"] if method == "FedAvg" else [])
        found = {("received", 0.0): {"scores": new.received()}}
        for mode, share in product(modes, SHARES):
            found[mode, share] = new.best(mode, share)
            print(f"{setting.name}, seed {seed}: {method}, {mode}, {share:g}", flush=True)
        for (mode, share), fit in found.items():
            for view, (validation, test) in zip(new.views, fit["scores"], strict=True):
                yield {
                    "seed": seed,
                    "method": ALONE if mode == "scratch" else method,
                    "mode": mode,
                    "share": share,
                    "client": view.client,
                    "samples": view.samples,
                    "rejected_updates": new.rejected,
                    "epochs": fit.get("epochs"),
                    "lr": fit.get("lr"),
                    "validation_accuracy": validation.accuracy,
                    "test_accuracy": test.accuracy,
                    "test_samples": test.samples,
                }


def markdown(rows: pd.DataFrame) -> str:
    """Means and standard errors over seeds of the newcomers' mean accuracy, and leads over scratch."""
    keys = ["method", "mode", "share"]
    seeds = rows.groupby([*keys, "seed"])["test_accuracy"].mean().unstack("seed")
    shares = [0.0, *SHARES]
    heads = ["as received", *(f"{100 * share:g} %" for share in SHARES)]
    lines = [f"| method | fitted | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    pairs = dict.fromkeys(zip(rows["method"], rows["mode"], strict=True))
    for method, mode in sorted(pairs, key=lambda pair: pair[0] == ALONE):
        if mode != "received":
            there = {share: seeds.loc[(method, mode, share)] for share in SHARES}
            as_it_is = (method, "received", 0.0)
            if as_it_is in seeds.index:
                there[0.0] = seeds.loc[as_it_is]
            lines.append(_line(method, mode, [there.get(share) for share in shares]))
    scratch = [seeds.loc[(ALONE, "scratch", share)] for share in SHARES]
    for method in METHODS:
        own = [seeds.loc[(method, "transfer", share)] for share in SHARES]
        leads = [a - b for a, b in zip(own, scratch, strict=True)]
        lines.append(_line(method, "transfer less scratch", [None, *leads]))
    return "\n".join(lines) + "\n"


def _line(method: str, mode: str, cells: Sequence[pd.Series | None]) -> str:
    """A row of the table; a cell has a value a seed."""
    texts = ["" if cell is None else _over_seeds(cell) for cell in cells]
    return f"| {method} | {mode} | {' | '.join(texts)} |"


def _over_seeds(values: pd.Series) -> str:
    """Mean and standard error; of one seed, its value."""
    error = f" ± {values.sem():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{error}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--samples", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=Path("results/newcomers"))
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    setting = Setting(arguments.model, arguments.samples, arguments.rounds, folder)
    for seed in arguments.seeds:
        path = folder / f"{setting.name}-{seed}.parquet"
        if not path.exists():
            pd.DataFrame(rows_of(setting, seed)).to_parquet(path)
    files = sorted(folder.glob(f"{setting.name}-*.parquet"))
    text = markdown(pd.concat(pd.read_parquet(file) for file in files))
    (folder / f"{setting.name}.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
