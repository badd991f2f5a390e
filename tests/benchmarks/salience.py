"""How well pruned networks predict, by what decides and by budget, without fine-tuning.

    python tests/benchmarks/salience.py resnet20 0 1 2 3 4
    python tests/benchmarks/salience.py vgg11 0 1 2 3 4

trains each network on Fashion-MNIST (32 x 32), prunes it to 0.8, 0.6 and 0.4 of its FLOPs, and writes
results/salience/MODEL-SEED.parquet. What is there already is not done again. All that search score
as many networks as each other, on the same 256 samples; accuracies are of 1,872 other ones. Batch norm's
statistics are taken anew for each. With `--device cuda` it takes minutes instead of hours.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from spatl_ray import seeding
from spatl_ray.config import Data, Model, Pretraining, Training
from spatl_ray.data.dataset import digest
from spatl_ray.data.datasets import load_dataset
from spatl_ray.selection import criteria
from spatl_ray.selection.agent import Agent, act, load_agent, new_agent
from spatl_ray.selection.candidate import Candidate
from spatl_ray.selection.checkpoint import Checkpoints
from spatl_ray.selection.environment import Accuracy, PruningEnvironment
from spatl_ray.selection.ppo import Learner, search
from spatl_ray.selection.pretrain import NETWORKS
from spatl_ray.selection.pruning import Pruned
from spatl_ray.selection.salience import FLOOR
from spatl_ray.selection.subject import Subject, accuracy_of, train_subject
from spatl_ray.training.local import Trainer

BUDGETS = (0.6, 0.4, 0.8)
EVALUATIONS = 102
"""Networks that a search may score: 100 episodes and the agent's own choice before and after."""

REWARD, TEST = 256, 1_872
EQUAL = ("l2", "l1", "random", "taylor", "update", "norm_scale")
MODELS = {
    "resnet20": {"samples": 8_000, "epochs": 6, "lr": 0.05, "options": {}},
    "vgg11": {"samples": 6_000, "epochs": 5, "lr": 0.01, "options": {"norm": "batch"}},
}
NOTCHES = {"resnet20": 0.5, "vgg11": 0.7}
"""A step of the greedy search multiplies one layer's ratio by this: ResNet-20 has more layers to try."""

Agents = Mapping[str, tuple[Callable[[], Agent], str]]
AGENTS: Agents = {
    "agent": (lambda: load_agent("shipped"), "l2"),
    "agent, update": (lambda: load_agent("shipped"), "update"),
    "untrained agent": (lambda: new_agent(0), "l2"),
    "untrained agent, update": (lambda: new_agent(0), "update"),
}
"""Which agent gives layers their ratios, and the criterion of which channels of a layer are kept."""

Decided = tuple[Pruned, int]
"""What is kept, and how many networks were scored for it."""


def trained(model: str, seed: int, folder: Path, device: str) -> tuple[Subject, Pretraining]:
    """The trained network of a seed, read if it was trained before."""
    what = MODELS[model]
    options = Pretraining(
        seed=seed,
        data=Data(name="fashion_mnist", options={"pad": 2}),
        model=Model(name=model, options=what["options"]),
        others=(),
        training=Training(
            epochs=what["epochs"], lr=what["lr"], schedule="cosine", weight_decay=5e-4
        ),
        samples=what["samples"],
        held_out=REWARD + TEST,
    )
    network = options.model_dump_json(include=NETWORKS)
    checkpoints = Checkpoints(folder / f"{model}-{seed}", digest(network))

    def told(done: int, epochs: int, loss: float) -> None:
        print(f"{model} {seed}: epoch {done} of {epochs}, loss {loss:.3f}", flush=True)

    dataset = load_dataset(options.data, seed)
    return train_subject(options, dataset, checkpoints, told, device=device), options


def candidate(subject: Subject, options: Pretraining) -> Candidate:
    """The network as criteria see a client's."""
    trainer = Trainer(subject.model, options.training)
    x, y = (part[:256] for part in subject.trained)
    size = subject.space.size
    return Candidate(
        client=0,
        round=0,
        space=subject.space,
        model=subject.end,
        update=subject.end.parameters[:size] - subject.start.parameters[:size],
        state={},
        validate=lambda *_: None,
        generator=seeding.generator(options.seed, "salience study"),
        gradient_of=lambda vector: trainer.gradient(vector, x, y),
    )


def greedy(subject: Subject, accuracy: Accuracy, budget: float, notch: float) -> Decided:
    """Narrow the layer that costs least accuracy for the FLOPs it saves, until the budget is met.

    If the evaluations are used up before, all ratios are scaled down to the budget.
    """
    pruner, scores = subject.pruner, subject.scores
    ratios = np.ones(len(pruner.layers))
    now, evaluations = pruner.kept(scores, ratios), 1
    best = accuracy(now)
    while now.share > budget:
        tried = []
        for layer in range(len(ratios)):
            narrower = ratios.copy()
            narrower[layer] = max(FLOOR, notch * ratios[layer])
            pruned = pruner.kept(scores, narrower)
            if pruned.share >= now.share:
                continue
            if evaluations == EVALUATIONS:
                return pruner.within(scores, np.log(ratios), budget), evaluations
            evaluations += 1
            score = accuracy(pruned)
            tried.append(((best - score) / (now.share - pruned.share), layer, score, pruned))
        _, layer, best, now = min(tried, key=lambda each: each[:2])
        ratios[layer] = max(FLOOR, notch * ratios[layer])
    return now, evaluations


def deciders(
    subject: Subject, options: Pretraining, accuracy: Accuracy, budget: float, agents: Agents
) -> Iterator[tuple[str, Callable[[], Decided]]]:
    """By name, all that decide what is kept within a budget."""
    notch = NOTCHES[options.model.name]
    pruner, equal = subject.pruner, np.zeros(len(subject.pruner.layers))
    seen = candidate(subject, options)
    for name in EQUAL:
        scores = criteria.CRITERIA[name](seen)
        yield f"equal ratios, {name}", lambda s=scores: (pruner.within(s, equal, budget), 0)
    yield "l2 over all layers", lambda: (pruner.threshold(subject.scores, budget), 0)
    yield "greedy search", lambda: greedy(subject, accuracy, budget, notch)

    def environment(criterion: str) -> PruningEnvironment:
        scores = criteria.CRITERIA[criterion](seen)
        return PruningEnvironment(
            pruner, subject.features, scores, subject.weights, accuracy, budget
        )

    def zero_shot(agent: Agent, criterion: str) -> Decided:
        place = environment(criterion)
        return place.decide(lambda s: act(agent, s, place.topology, None)[0]), 0

    def tuned(agent: Agent, criterion: str) -> Decided:
        generator = seeding.generator(options.seed, "salience study, agent")
        learner = Learner(agent, only_head=True)
        found = search(agent, learner, environment(criterion), generator, EVALUATIONS - 2)
        return found.pruned, found.evaluations

    for name, (made, criterion) in agents.items():
        yield name, lambda made=made, c=criterion: zero_shot(made(), c)
        yield f"{name}, head tuned", lambda made=made, c=criterion: tuned(made(), c)


def study(model: str, seed: int, folder: Path, device: str, agents: Agents = AGENTS) -> None:
    """All deciders at all budgets on one network; rows that are there already are kept."""
    path = folder / f"{model}-{seed}.parquet"
    rows = pd.read_parquet(path).to_dict("records") if path.exists() else []
    there = {(row["budget"], row["decided by"]) for row in rows}
    subject, options = trained(model, seed, folder, device)
    reward = accuracy_of(subject, subject.x[:REWARD], subject.y[:REWARD])
    held_out = accuracy_of(subject, subject.x[REWARD:], subject.y[REWARD:])
    dense = held_out(subject.pruner.kept(subject.scores, np.ones(len(subject.pruner.layers))))
    for budget in BUDGETS:
        for name, decide in deciders(subject, options, reward, budget, agents):
            if (budget, name) in there:
                continue
            start = time.perf_counter()
            pruned, evaluations = decide()
            row = {
                "model": model,
                "seed": seed,
                "budget": budget,
                "decided by": name,
                "evaluations": evaluations,
                "seconds": time.perf_counter() - start,
                "flops_share": subject.pruner.flops_share(pruned.bits),
                "accuracy": held_out(pruned),
                "dense_accuracy": dense,
            }
            print(
                {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True
            )
            rows.append(row)
            pd.DataFrame(rows).to_parquet(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--folder", type=Path, default=Path("results/salience"))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        study(arguments.model, seed, arguments.folder, arguments.device)
    table = pd.concat(pd.read_parquet(file) for file in sorted(arguments.folder.glob("*.parquet")))
    means = table.groupby(["model", "budget", "decided by"])["accuracy"].agg(
        ["mean", "sem", "count"]
    )
    print(means.round(3).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main())
