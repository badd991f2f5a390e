"""The agent: any network, its file, and what is wrong with a file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from environments import environment_of
from flat_models import flatten, split_model
from safetensors.torch import load_file, save_file

from spatl_ray.config.agent import SHIPPED
from spatl_ray.errors import ConfigError
from spatl_ray.selection.agent import (
    FORMAT,
    act,
    load_agent,
    new_agent,
    provenance,
    save_agent,
)

KILOBYTE = 1000


@pytest.mark.parametrize("name", ["resnet20", "lenet", "mlp"])
def test_one_agent_decides_for_networks_of_any_size(name: str) -> None:
    options = {"resnet20": {"width": 4}, "mlp": {"hidden": [32, 16]}}.get(name, {})
    environment = environment_of(flatten(split_model(name, **options)), budget=0.5)
    action, _, _ = act(new_agent(0), environment.start(), environment.topology, None)
    assert action.shape == (environment.layers,)
    assert np.isfinite(action).all()


def test_a_decision_takes_less_than_five_milliseconds_of_one_core() -> None:
    """About 1 ms; the process's own time, as others may use the machine."""
    environment = environment_of(flatten(split_model("resnet20", width=4)), budget=0.5)
    agent, seen, seconds = load_agent(SHIPPED), environment.start(), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(20):
            start = time.process_time()
            act(agent, seen, environment.topology, None)
            seconds.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert np.median(seconds) < 5e-3


def test_a_decision_depends_on_the_topology() -> None:
    environment = environment_of()
    agent, seen, topology = new_agent(0), environment.start(), environment.topology
    before, _, _ = act(agent, seen, topology, None)
    topology.inputs, topology.readers = topology.readers, topology.inputs
    after, _, _ = act(agent, seen, topology, None)
    assert np.abs(before - after).max() > 1e-5


def test_the_shipped_agent_is_small_and_says_how_it_was_made() -> None:
    load_agent("shipped")
    made = provenance("shipped")
    assert str(made["command"]).startswith("spatl pretrain-agent")
    assert made["data"] == "fashion_mnist"
    assert made["options"]["model"]["name"] == "resnet56"  # type: ignore[index]
    assert made["accuracy_own"] > made["accuracy_equal_ratios"]  # type: ignore[operator]


def test_a_file_gives_the_same_decisions(tmp_path: Path) -> None:
    agent, environment = new_agent(3), environment_of()
    path = tmp_path / "own.safetensors"
    save_agent(agent, path, {"command": "by hand"})
    assert path.stat().st_size < 100 * KILOBYTE
    assert provenance(str(path)) == {"command": "by hand"}
    seen = environment.start()
    decisions = [
        act(a, seen, environment.topology, None)[0] for a in (agent, load_agent(str(path)))
    ]
    assert np.array_equal(*decisions)


def test_a_head_goes_through_a_vector() -> None:
    one, other = new_agent(0), new_agent(1)
    other.set_head(one.head())
    for mine, theirs in zip(one.actor.parameters(), other.actor.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", r"got '.*nowhere.safetensors', which is no file"),
        ("cut", "a whole file of this version"),
        ("no format", "got 'a file without a format'"),
        ("older", "got 'spatl_ray agent 0.0'"),
        ("nan", "it holds NaN or infinity"),
        ("tensor", "Missing key"),
        ("text", "a whole file of this version"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, what: str, words: str) -> None:
    path = tmp_path / "agent.safetensors"
    save_agent(new_agent(0), path, {})
    tensors = load_file(path)
    if what == "missing":
        path = tmp_path / "nowhere.safetensors"
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif what == "no format":
        save_file(tensors, path)
    elif what == "older":
        save_file(tensors, path, {"format": "spatl_ray agent 0.0"})
    elif what == "nan":
        tensors["own.bias"][0] = float("nan")
        save_file(tensors, path, {"format": FORMAT})
    elif what == "tensor":
        del tensors["own.bias"]
        save_file(tensors, path, {"format": FORMAT})
    else:
        path.write_text("weights")
    with pytest.raises(ConfigError, match=f"algorithm.agent.weights must be .*{words}"):
        load_agent(str(path))
