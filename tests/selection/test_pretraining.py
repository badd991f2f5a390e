"""Pre-training: reproduced from a seed, gone on with as if never stopped, and refused where it cannot be."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small_files import files_of_at_most

from spatl_ray.cli import main
from spatl_ray.config import Pretraining
from spatl_ray.errors import ConfigError, ResultsError, StateError
from spatl_ray.selection.agent import SHIPPED, Agent, load_agent, new_agent, provenance, save_agent
from spatl_ray.selection.checkpoint import (
    Checkpoints,
    arrays_of,
    load_optimizer,
    optimizer_tensors,
    tensors_of,
)
from spatl_ray.selection.learning_curve import LINES, draw_curve, save_curve
from spatl_ray.selection.pretrain import Pretrainer, Row
from spatl_ray.selection.pretraining_run import pretraining_from

pytestmark = pytest.mark.integration

SMALL = [
    "data=digits", "model=resnet20", "model.options.width=2", "samples=200", "held_out=100",
    "reward_samples=32", "updates=4", "episodes=2", "checkpoint_every=1",
    "training={epochs: 2, lr: 0.05}", "others=[]",
]  # fmt: skip


def options(*more: str) -> Pretraining:
    return pretraining_from([*SMALL, *more])


def quiet(*_: Any) -> None:
    """Takes progress and says nothing."""


def same(one: Agent, other: Agent) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_same_seed_gives_the_same_agent(tmp_path: Path) -> None:
    first, again = (Pretrainer(options(), tmp_path / n, quiet) for n in ("first", "again"))
    agent, other = first.run(), Pretrainer(options("seed=1"), tmp_path / "other", quiet).run()
    assert same(agent, again.run())
    assert first.curve == again.curve
    assert not same(agent, other)


class StoppedError(Exception):
    """In the middle of a pre-training."""


@pytest.mark.parametrize(("stage", "at"), [("network", 1), ("agent", 1), ("agent", 3)])
def test_going_on_equals_never_having_stopped(tmp_path: Path, stage: str, at: int) -> None:
    def stops(now: str, done: int, of: int, row: Row) -> None:
        if (now, done) == (stage, at):
            raise StoppedError

    straight = Pretrainer(options(), tmp_path / "straight", quiet)
    agent = straight.run()
    with pytest.raises(StoppedError):
        Pretrainer(options(), tmp_path / "broken", stops).run()
    told = []
    second = Pretrainer(options(), tmp_path / "broken", lambda *what: told.append(what[:2]))
    assert same(agent, second.run())
    assert second.curve == straight.curve
    everything = [("network", 1), ("network", 2), *(("agent", n) for n in range(1, 5))]
    assert told == everything[everything.index((stage, at)) + 1 :]


def test_networks_take_turns(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    both = options("others=[{name: mlp}]", "updates=3")
    trainer = Pretrainer(both, tmp_path, lambda *what: told.append(what[:3]))
    trainer.run()
    assert [row["network"] for row in trainer.curve] == [0, 1, 0]
    assert [len(subject.pruner.layers) for subject in trainer.subjects] == [19, 2]
    assert len(set(trainer.dense_accuracies)) == 2
    assert told[:4] == [("network", n, 4) for n in range(1, 5)]


def test_equal_networks_differ(tmp_path: Path) -> None:
    """In their first weights, and in the samples that they see and are held out."""
    twins = options("others=[{name: resnet20, options: {width: 2}}]", "updates=1")
    trainer = Pretrainer(twins, tmp_path, quiet)
    trainer.run()
    one, other = trainer.subjects
    assert (one.start.parameters != other.start.parameters).mean() > 0.5
    assert not torch.equal(one.trained[0], other.trained[0])
    assert not torch.equal(one.x, other.x)


def test_networks_are_trained_one_by_one() -> None:
    with pytest.raises(ConfigError, match=r"training.together must be 1, got 2"):
        options("training.together=2")


def test_the_networks_checkpoint_outlives_a_change_of_the_agents_options(tmp_path: Path) -> None:
    Pretrainer(options(), tmp_path, quiet).run()
    (tmp_path / "agent.ckpt").unlink()
    told = []
    Pretrainer(options("updates=1"), tmp_path, lambda *what: told.append(what[0])).run()
    assert told == ["agent"]


def test_what_an_earlier_version_left_is_not_opened(tmp_path: Path) -> None:
    """Its checkpoints could run code: the pre-training begins anew, beside them."""
    tmp_path.joinpath("agent.pt").write_bytes(b"made by torch.save")
    trainer = Pretrainer(options("updates=1"), tmp_path, quiet)
    trainer.run()
    assert len(trainer.curve) == 1
    magics = {path.name: path.read_bytes()[:12] for path in sorted(tmp_path.glob("*.ckpt"))}
    assert magics == {"agent.ckpt": b"SPATLAGENT01", "network-0.ckpt": b"SPATLAGENT01"}


def test_what_an_optimizer_remembers_is_carried_over(tmp_path: Path) -> None:
    """Two more steps of a restored Adam are those of the one that was saved, to the bit."""

    def step(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, by: float) -> None:
        optimizer.zero_grad()
        ((parameter * by) ** 2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def made() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        parameter = torch.nn.Parameter(torch.arange(3.0))
        return parameter, torch.optim.Adam([parameter], 0.1)

    parameter, optimizer = made()
    assert optimizer_tensors(optimizer) == {}
    for by in (1.0, 2.0):
        step(parameter, optimizer, by)
    files = Checkpoints(tmp_path, "key")
    files.write("adam", arrays_of("optimizer", optimizer_tensors(optimizer)))
    arrays, _ = files.read("adam") or ({}, {})
    other, restored = made()
    with torch.no_grad():
        other.copy_(parameter)
    load_optimizer(restored, tensors_of("optimizer", arrays))
    for by in (3.0, 4.0):
        step(parameter, optimizer, by)
        step(other, restored, by)
    assert torch.equal(parameter, other)
    assert restored.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


@pytest.mark.parametrize("change", ["updates=5", "seed=1", "samples=210", "model.options.width=3"])
def test_checkpoints_of_other_options_are_refused(tmp_path: Path, change: str) -> None:
    Pretrainer(options(), tmp_path, quiet).run()
    with pytest.raises(StateError, match=r"\.ckpt must be of these options and this data"):
        Pretrainer(options(change), tmp_path, quiet).run()


@pytest.mark.parametrize("name", ["network-0", "agent"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    Pretrainer(options(), tmp_path, quiet).run()
    path = tmp_path / f"{name}.ckpt"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(StateError, match=rf"{name}\.ckpt must match its checksum: it is damaged"):
        Pretrainer(options(), tmp_path, quiet).run()


def test_the_command_writes_agent_curve_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "own.safetensors"
    assert main(["pretrain-agent", *SMALL, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"agent: {out}" in printed
    made = provenance(str(out))
    load_agent(str(out))
    assert made["data"] == "digits"
    assert str(made["command"]).startswith("spatl pretrain-agent ")
    curve = pd.read_parquet(out.with_suffix(".parquet"))
    assert curve["update"].tolist() == [0, 1, 2, 3]
    assert curve["accuracy_own"].between(0, 1).all()
    assert made["accuracy_own"] == pytest.approx(curve["accuracy_own"].mean())
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_provenances_command_is_the_one(tmp_path: Path) -> None:
    """What the file says made it, read as a shell reads it, gives the same options."""
    out = tmp_path / "own.safetensors"
    more = ["others=[{name: resnet20, options: {width: 3}}]"]
    assert main(["pretrain-agent", *SMALL, *more, "--out", str(out)]) == 0
    made = provenance(str(out))
    program, command, *overrides = shlex.split(str(made["command"]))
    assert (program, command) == ("spatl", "pretrain-agent")
    assert pretraining_from(overrides) == options(*more)
    assert Pretraining.model_validate(made["options"]) == options(*more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "agent.pt"], "--out must end in .safetensors, got 'agent.pt'"),
        (["least_budget=0.9", "most_budget=0.5"], "least_budget must be at most most_budget 0.5"),
        (
            ["samples=1800"],
            "samples + held_out must be at most the 1438 training samples of digits",
        ),
        (["reward_samples=101"], "reward_samples must be at most held_out 100, got 101"),
        (["training={steps: 3}"], "training must give epochs"),
        (["updates=0"], "updates must be at least 1, got 0"),
        (["model=nix"], "model.name must be one of"),
        (["update=3"], "update is no field of a pre-training; did you mean updates?"),
        (["rounds=3"], "rounds is no field of a pre-training"),
        (
            ["least_budget=0.01"],
            "least_budget must be at least 0.1549, which every layer of resnet20 at its least keep ratio "
            "costs, got 0.01",
        ),
    ],
)
def test_bad_input_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain-agent", *SMALL, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["model={name: vgg11, options: {width: 2}}", "training.lr=1e6"],
            "training.lr must be so that every network stays finite, got 1e+06, with which network 0 "
            "(vgg11) diverged",
        ),
        (
            ["prior=1e300"],
            "learning_rate, prior and sigma must be so that the agent stays finite, got 0.001, 1e+300",
        ),
    ],
)
def test_what_diverges_ends_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    out = tmp_path / "own.safetensors"
    assert main(["pretrain-agent", *SMALL, *arguments, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.glob("own.*")) in ([], [tmp_path / "own.checkpoints"])


@pytest.mark.parametrize(
    ("most", "message"),
    [
        (1_000, "network-0.ckpt cannot be written"),
        (200_000, "agent.ckpt cannot be written"),
    ],
)
def test_a_full_disk_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], most: int, message: str
) -> None:
    out = tmp_path / "own.safetensors"
    with files_of_at_most(most):
        assert main(["pretrain-agent", *SMALL, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_agent_and_its_curve_do_not_fit(tmp_path: Path) -> None:
    row = {"update": 0, **dict.fromkeys(LINES, 0.5)}
    with files_of_at_most(1_000):
        with pytest.raises(ResultsError, match=r"the agent .*own\.safetensors cannot be written"):
            save_agent(new_agent(0), tmp_path / "own.safetensors", {})
        with pytest.raises(ResultsError, match=r"the learning curve .* cannot be written"):
            save_curve([row], tmp_path / "own.parquet")
        with pytest.raises(ResultsError, match=r"the picture .* cannot be written"):
            draw_curve([row], tmp_path / "own.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file/agent.safetensors", "--out must be a place that can be written, got "),
        ("folder.safetensors", "--out must be a file's name, got "),
        ("drawn.safetensors", "drawn.png is a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, message: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "drawn.png").mkdir()
    before = sorted(tmp_path.iterdir())
    assert main(["pretrain-agent", *SMALL, "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_the_shipped_agent_tells_how_it_was_made() -> None:
    made = provenance(SHIPPED)
    assert made["command"] == "spatl pretrain-agent"
    assert Pretraining.model_validate(made["options"]) == Pretraining()
    assert made["data"] == "fashion_mnist"
    assert float(made["accuracy_own"]) > float(made["accuracy_equal_ratios"])  # type: ignore[arg-type]


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="nix"):
        options("nix=1")
