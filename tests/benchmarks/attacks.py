"""What each rule of aggregation makes of each attack: accuracy on Fashion-MNIST's test set.

    python tests/benchmarks/attacks.py 0 1
    python tests/benchmarks/attacks.py 0 --algorithm spatl --model lenet

runs FedAvg on 20 clients (5,000 samples, 0.8 of them for training, Dirichlet 0.5), all of them in each of 20
rounds, 4 of them hostile, for each attack, rule and seed; or SPATL, keep 0.5, without own predictors; or
"selection", which is that without control variates. It writes RESULTS/attacks.parquet, a row a run, and
RESULTS/attacks.md, a table; what is there is not run again. Accuracies are of the global model, after the
last round, on all 10,000 test images.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.experiments import experiment_from

SHARE = 0.2
"""Of hostile clients; the rules know it."""

CLIP = 0.8
"""About the median L2 norm of an honest update."""

ATTACKS: Mapping[str, dict[str, Any] | None] = {
    "none": None,
    "sign_flip": {"name": "sign_flip", "share": SHARE, "scale": 4.0},
    "scaled": {"name": "scaled", "share": SHARE, "scale": 100.0},
    "gaussian": {"name": "gaussian", "share": SHARE, "scale": 100.0},
    "label_flip": {"name": "label_flip", "share": SHARE},
}
RULES: Mapping[str, dict[str, Any]] = {
    "mean": {},
    "mean, clipped": {"clip_norm": CLIP},
    **{
        rule: {"rule": rule, "hostile": SHARE}
        for rule in ("median", "trimmed_mean", "krum", "multi_krum")
    },
}
ALGORITHMS: Mapping[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "spatl": {"name": "spatl", "keep": 0.5, "transfer": False},
    "selection": {"name": "spatl", "keep": 0.5, "transfer": False, "control": None},
}
LR = {"fedavg": 0.05, "spatl": 0.02, "selection": 0.02}
"""At 0.05 SPATL's control variates make LeNet diverge here, also without an attack."""


def experiment_of(
    attack: str, rule: str, seed: int, algorithm: str, model: str, folder: Path
) -> Experiment:
    """One run; a client counts 1/20, whatever it has, so that rules differ by nothing else."""
    return experiment_from(
        {
            "name": "attacks",
            "seed": seed,
            "rounds": 20,
            "clients": 20,
            "objective": "uniform",
            "data": {"name": "fashion_mnist", "samples": 5_000},
            "partition": {"name": "dirichlet", "beta": 0.5},
            "model": model,
            "training": {"epochs": 1, "batch_size": 32, "lr": LR[algorithm], "momentum": 0.9},
            "algorithm": ALGORITHMS[algorithm],
            "aggregation": RULES[rule],
            "attack": ATTACKS[attack],
            "evaluation": {"every": 20, "panel": 1, "global_samples": None},
            "engine": {"backend": "serial"},
            "checkpoints": {"every": 0},
            "results": {"folder": str(folder / "runs")},
        }
    )


def measured(attack: str, rule: str, experiment: Experiment) -> dict[str, Any]:
    """Run it; its accuracy, and how many updates of hostile and honest clients counted."""
    start = time.perf_counter()
    summary = run(experiment)
    seconds = time.perf_counter() - start
    clients = pd.read_parquet(summary.folder / "clients" / f"run_id={summary.run_id}")
    there = clients[clients["participated"]]
    counted = there["status"].isin(["accepted", "clipped"])
    hostile = there["hostile"].fillna(False).astype(bool)
    return {
        "run_id": summary.run_id,
        "attack": attack,
        "rule": rule,
        "seed": experiment.seed,
        "model": experiment.model.name,
        "accuracy": summary.last_round["global_test_accuracy"],
        "loss": summary.last_round["global_test_loss"],
        "hostile_counted": counted[hostile].mean(),
        "honest_counted": counted[~hostile].mean(),
        "seconds": seconds,
    }


def markdown(rows: pd.DataFrame) -> str:
    """Mean accuracies, a row a rule and a column an attack."""
    means = rows.groupby(["rule", "attack"])["accuracy"].mean()
    lines = [f"| rule | {' | '.join(ATTACKS)} |", "|---" * (1 + len(ATTACKS)) + "|"]
    for rule in RULES:
        found = [means.get((rule, attack)) for attack in ATTACKS]
        cells = ["" if value is None else f"{value:.3f}" for value in found]
        lines.append(f"| `{rule}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--folder", type=Path, default=Path("results/attacks"))
    parser.add_argument("--model", choices=("lenet", "mlp"), default="mlp")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="fedavg")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / "attacks.parquet"
    rows = pd.read_parquet(path).to_dict("records") if path.exists() else []
    there = {row["run_id"] for row in rows}
    wanted = {}
    for seed, attack, rule in itertools.product(
        arguments.seeds, arguments.attacks, arguments.rules
    ):
        experiment = experiment_of(
            attack, rule, seed, arguments.algorithm, arguments.model, arguments.folder
        )
        wanted[experiment.run_id] = attack, rule, experiment
    text = ""
    for run_id, what in wanted.items():
        if run_id not in there:
            rows.append(measured(*what))
            print(rows[-1], flush=True)
            pd.DataFrame(rows).to_parquet(path)
        # Not those of other settings, which may be there from before.
        text = markdown(pd.DataFrame([row for row in rows if row["run_id"] in wanted]))
        (arguments.folder / "attacks.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
