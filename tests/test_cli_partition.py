"""`spatl partition`: what it prints, the picture it saves, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from spatl_ray.cli import main
from spatl_ray.data.datasets import load_dataset
from spatl_ray.data.federated import federate
from spatl_ray.data.heterogeneity import held_counts, heterogeneity
from spatl_ray.experiments import load_experiment

pytestmark = pytest.mark.integration

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def partition(*arguments: str) -> int:
    return main(["partition", "demo", *arguments])


def counts(*overrides: str) -> np.ndarray:
    """What a run of the same experiment would deal."""
    experiment = load_experiment("demo", overrides)
    return held_counts(federate(load_dataset(experiment.data, experiment.seed), experiment))


def test_it_prints_the_figures_and_who_holds_what(capsys: Capture) -> None:
    assert partition("clients=5", "--no-picture") == 0
    title, _, *lines = capsys.readouterr().out.splitlines()
    dealt = counts("clients=5")
    assert title == (
        "digits, dirichlet(beta=0.3, min_size=20), seed 1: "
        "5 clients, 1,438 of 1,438 training samples"
    )
    assert f"{heterogeneity(dealt).distance_mean:.3f}" in lines[0].split()
    table = np.array([line.replace(",", "").split() for line in lines[-5:]], dtype=np.int64)
    assert np.array_equal(table[:, 2:], dealt)
    assert not list(Path().iterdir())


def test_it_does_not_print_many_clients(capsys: Capture) -> None:
    assert partition("clients=21", "partition=iid", "--no-picture") == 0
    out = capsys.readouterr().out
    assert "samples a client" in out
    assert "samples of each class" not in out


def test_it_says_how_many_samples_nobody_holds(capsys: Capture) -> None:
    """Two clients of one class each; of the other eight classes nobody has any."""
    overrides = ["clients=2", "partition=classes", "partition.k=1"]
    assert partition(*overrides, "--no-picture") == 0
    held = counts(*overrides).sum()
    assert f"2 clients, {held} of 1,438 training samples" in capsys.readouterr().out


def test_it_shows_noise_on_the_features(capsys: Capture) -> None:
    assert partition("clients=5", "partition=feature_noise", "partition.s=0.4") == 0
    out = capsys.readouterr().out
    assert "0.4  largest" in out
    assert "not shown" not in out
    assert partition("clients=5", "--no-picture") == 0
    assert "noise" not in capsys.readouterr().out


def test_it_says_that_an_own_partition_changes_features(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "inverse.py").write_text(
        "import numpy as np\n"
        "from spatl_ray.data.dealing import Partition\n"
        "def deal(labels, features, groups, clients, generator):\n"
        "    bounds = np.linspace(0, len(labels), clients + 1).astype(np.int64)\n"
        "    return Partition(np.arange(len(labels)), bounds, lambda client, indices, x: -x)\n"
    )
    assert partition("clients=5", "partition=inverse:deal", "--no-picture") == 0, (
        capsys.readouterr()
    )
    assert "the partition changes what each client sees; not shown" in capsys.readouterr().out


def test_the_picture_has_a_name_of_its_own(capsys: Capture) -> None:
    """A second one does not go over the first."""
    for name in ("partition-digits-iid-4.png", "partition-digits-iid-4-2.png"):
        assert partition("clients=4", "partition=iid") == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"picture: {name}"
        assert imread(name).shape[2] == 4
    assert len(list(Path().iterdir())) == 2


def test_the_picture_goes_where_it_is_told_over_what_is_there(capsys: Capture) -> None:
    Path("who.pdf").write_text("old")
    assert partition("--picture", "who.pdf", "clients=4") == 0
    assert Path("who.pdf").read_bytes().startswith(b"%PDF")
    assert "4 clients" in capsys.readouterr().out
    assert len(list(Path().iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["clients=0"], "error: clients must be at least 1, got 0\n"),
        (["clients=200"], "error: partition.min_size * clients must be at most 1438"),
        (["partition=writers"], "error: partition.name must not be 'writers'"),
        (["data=none"], "error: data.name must be one of"),
        (["--picture", "who.doc"], "error: --picture must end in one of"),
    ],
)
def test_a_fault_is_one_line_on_stderr(arguments: list[str], fault: str, capsys: Capture) -> None:
    assert partition(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(fault)
    assert captured.err.count("\n") == 1
    assert not list(Path().iterdir())


@pytest.mark.parametrize("arguments", [["--pictures", "a.png"], ["--picture", "a", "--no-picture"]])
def test_wrong_options_are_refused(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        partition(*arguments)
    assert caught.value.code == 2
    assert "usage: spatl" in capsys.readouterr().err


def test_own_data_and_partition_are_found_in_the_current_folder(tmp_path: Path) -> None:
    """In a process of its own, which builds no model and knows no Ray."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from spatl_ray.data.datasets import Dataset\n"
        "def load(n):\n"
        "    x, y = np.zeros((n, 1), np.float32), np.arange(n) % 2\n"
        "    return Dataset('my data/1', x, y, x, y, 2)\n"
        "def deal(labels, features, groups, clients, generator, first):\n"
        "    return [np.flatnonzero(labels == first), np.flatnonzero(labels != first)]\n"
    )
    overrides = ["data=mine:load", "data.options.n=40", "clients=2", "partition=mine:deal"]
    code = (
        "import sys; from spatl_ray.cli import main; "
        f"status = main(['partition', 'demo', *{[*overrides, 'partition.options.first=1']}]); "
        "known = set(sys.modules); "
        "sys.exit(status or bool({'ray', 'spatl_ray.models', 'spatl_ray.engine'} & known))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "my data/1, mine:deal(first=1), seed 1: 2 clients, 40 of 40 training samples"
    )
    assert lines[-4:-2] == ["     0   20   0  20", "     1   20  20   0"]
    assert lines[-1] == "picture: partition-my_data_1-deal-2.png"
    assert (tmp_path / "partition-my_data_1-deal-2.png").is_file()
