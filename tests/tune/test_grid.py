"""Grids: which runs they are, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatl_ray.errors import ConfigError
from tune.grid import GRIDS, read_grid

TEXT = """
name: small
experiment: demo
fixed: {rounds: 2}
grid:
  algorithm: [fedavg, {name: fedprox, mu: 0.1}]
  clients, sample_ratio: [[10, 1.0], [20, 0.5]]
  seed: [0, 1]
"""


def written(folder: Path, text: str) -> str:
    path = folder / "grid.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_grid_has_every_combination_once(tmp_path: Path) -> None:
    grid = read_grid(written(tmp_path, TEXT))
    experiments = [cell.experiment for cell in grid.cells]
    found = {(e.algorithm.name, e.clients, e.sample_ratio, e.seed) for e in experiments}
    names, sizes, seeds = ("fedavg", "fedprox"), ((10, 1.0), (20, 0.5)), (0, 1)
    assert found == {(name, *size, seed) for name in names for size in sizes for seed in seeds}
    assert len(experiments) == 8
    assert {e.rounds for e in experiments} == {2}
    assert {e.results.sweep_id for e in experiments} == {"small"}
    assert {e.results.trial_id for e in experiments} == {None}
    assert grid.axes == ("algorithm", "clients, sample_ratio", "seed")
    assert grid.cells[-1].values == {
        "algorithm": "fedprox(mu=0.1)",
        "clients, sample_ratio": "20, 0.5",
        "seed": "1",
    }


def test_overrides_replace_an_axis(tmp_path: Path) -> None:
    source = written(tmp_path, TEXT)
    experiments = [c.experiment for c in read_grid(source, ["seed=[3, 4]", "clients=20"]).cells]
    assert {(e.seed, e.clients, e.sample_ratio) for e in experiments} == {
        (3, 20, 0.5),
        (4, 20, 0.5),
    }
    experiments = [
        c.experiment for c in read_grid(source, ["algorithm=scaffold", "rounds=7"]).cells
    ]
    assert {(e.algorithm.name, e.rounds) for e in experiments} == {("scaffold", 7)}


@pytest.mark.parametrize("text", ["engine.backend=ray", "engine={backend: ray, workers: 2}"])
def test_runs_are_serial_unless_they_say_otherwise(tmp_path: Path, text: str) -> None:
    source = written(tmp_path, TEXT)
    assert {c.experiment.engine.backend for c in read_grid(source).cells} == {"serial"}
    assert {c.experiment.engine.backend for c in read_grid(source, [text]).cells} == {"ray"}


def test_runs_that_are_the_same_are_one(tmp_path: Path) -> None:
    text = TEXT.replace("grid:\n", "grid:\n  rounds: [3, 3]\n")
    assert len(read_grid(written(tmp_path, text)).cells) == 8


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_grid_can_be_read(path: Path) -> None:
    counts = {"fashion": 45, "niid_bench": 4 * 7 * 4 * 3 + 2 * 4 * 3, "spatl_paper": 105}
    counts |= {"reproduce": 3 * 2 * 2 * 2 * 10, "reproduce_full": 3 * 4 * 4 * 3 * 10}
    counts |= {"reproduce_parts": 3 * 8, "reproduce_options": 3 * 22, "reproduce_rates": 64}
    assert len(read_grid(path.stem).cells) == counts[path.stem]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: [0, 1]", "sed: [0, 1]", "sed is no field of an experiment; did you mean seed?"),
        ("seed: [0, 1]", "seed: []", "seed must be a list of at least one value, got []"),
        ("seed: [0, 1]", "seed: [0, -1]", "seed must be in [0, 4294967296), got -1"),
        ("[fedavg,", "[fedavgg,", "did you mean 'fedavg'?"),
        ("mu: 0.1", "mmu: 0.1", "algorithm.mmu is no field of fedprox; did you mean algorithm.mu"),
        ("[20, 0.5]", "[20]", "a value must be a list of 2, got [20]"),
        ("experiment: demo", "experiment: dmo", "did you mean 'demo'?"),
        (
            "experiment: demo",
            "experimnt: demo",
            "experimnt is no field of a grid; did you mean experiment?",
        ),
        ("fixed: {rounds: 2}", "fixed: {round: 2}", "round is no field of an experiment"),
        ("name: small", "name: so small", "name must match"),
        ("seed: [0, 1]", "seed: [2020-01-01]", "seed must be made of numbers, texts, true"),
        ("seed: [0, 1]", "seed: [[2020-01-01]]", "got date 2020-01-01; write it in quotes"),
        ("{rounds: 2}", "{rounds: 2020-01-01}", "rounds must be made of numbers, texts, true"),
        (
            "{rounds: 2}",
            "{results.folder: 's3://bucket/x'}",
            "results.folder must be a folder in a search or a sweep",
        ),
        ("{rounds: 2}", "{5: 2}", "a key must be the name of a field, or of several with commas"),
        ("seed: [0, 1]", "5: [0, 1]", "with commas between, got 5"),
        ("seed: [0, 1]", "on: [0, 1]", "with commas between, got True"),
        ("seed: [0, 1]", "seed: [true]", "seed must be an integer, got True"),
        ("seed: [0, 1]", "seed: [[0]]", "seed must be an integer, got [0]"),
        ("mu: 0.1", "1: 0.1", "algorithm: the keys of a mapping must be text, got 1"),
        ("seed: [0, 1]", "clients: [5]", "clients must be set by one axis only"),
        ("seed: [0, 1]", "seed, seed: [[0, 1]]", "seed must be set by one axis only"),
        (
            "seed: [0, 1]",
            "algorithm.server_lr: [1.0]",
            "algorithm and algorithm.server_lr must not be set both",
        ),
        (
            "[0, 1]",
            f"{list(range(200))}\n  rounds: {list(range(1, 201))}",
            "must have at most 100,000 points, got 160,000",
        ),
        (TEXT, "[1]", "must hold a mapping of name, experiment, fixed, grid"),
    ],
)
def test_a_bad_grid_names_field_value_and_rule(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_grid(written(tmp_path, TEXT.replace(old, new)))
    assert message in str(caught.value)


def test_an_unknown_grid_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"a grid must be a YAML file or one of .*'niid_bench'\?"):
        read_grid("niid_bensh")
