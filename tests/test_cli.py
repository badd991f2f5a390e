"""The command line: what it prints, where, and with which exit status."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as parquet
import pytest

from spatl_ray.cli import DATA_SETS, DOTTED, LOGGERS, MODELS, main
from spatl_ray.config import BUILT_IN, Experiment
from spatl_ray.data.datasets import BUILT_IN as DATA_SETS_THERE_ARE
from spatl_ray.experiments import load_experiment, presets
from spatl_ray.fields import kinds
from spatl_ray.loggers.registry import LOGGERS as LOGGERS_THERE_ARE
from spatl_ray.models.split import MODELS as MODELS_THERE_ARE

SMALL = ("model=mlp", "engine.backend=serial", "clients=4", "sample_ratio=0.5")
ROOT = Path(__file__).parents[1]
Capture = pytest.CaptureFixture[str]


def test_validate_prints_a_file_that_reads_back(tmp_path: Path, capsys: Capture) -> None:
    overrides = ["algorithm.keep=0.3", "sample_ratio=0.5"]
    assert main(["validate", "demo", *overrides]) == 0
    path = tmp_path / "resolved.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_experiment(path) == load_experiment("demo", overrides)


def test_validate_says_what_a_run_costs(capsys: Capture) -> None:
    overrides = ["rounds=7", "clients=20", "sample_ratio=0.25", "training.epochs=3"]
    assert main(["validate", "demo", *overrides]) == 0
    out = capsys.readouterr().out
    assert f"# run id: {load_experiment('demo', overrides).run_id}\n" in out
    assert "# cohort: 5 of 20 clients a round\n" in out
    assert "# cost: 7 rounds, 35 client rounds of 3 local epochs\n" in out


def test_every_fault_is_one_line_on_stderr(capsys: Capture) -> None:
    assert main(["validate", "demo", "rounds=0", "sample_ratio=1.5"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: rounds must be at least 1, got 0",
        "error: sample_ratio must be in (0, 1], got 1.5",
    ]


def test_traceback_on_request(capsys: Capture) -> None:
    assert main(["validate", "demo", "rounds=0", "--traceback"]) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.endswith("error: rounds must be at least 1, got 0\n")


def test_list_names_everything_there_is(capsys: Capture) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    entries = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line[0] == " "}
    sections = [kinds(Experiment.model_fields[n]) for n in ("partition", "sampler", "availability")]
    names = {
        *BUILT_IN,
        *presets(),
        *DATA_SETS,
        *MODELS,
        *LOGGERS,
        "constant",
        "package.module:Name",
    }
    assert names.union(*sections) - {"own"} <= set(entries)
    assert "own" not in entries
    assert all(len(text) > 5 for text in entries.values())


def test_list_knows_the_data_sets_models_and_loggers_there_are() -> None:
    """Their texts are written down beside the command, which must not import what they name."""
    assert list(DATA_SETS) == list(DATA_SETS_THERE_ARE)
    assert list(MODELS) == [*MODELS_THERE_ARE, "torchvision.NAME"]
    assert list(LOGGERS) == list(LOGGERS_THERE_ARE)


def test_list_says_where_an_own_one_can_stand(capsys: Capture) -> None:
    main(["list"])
    sections = re.split(r"^(\S.*):$", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    own = {h for h, text in zip(sections[::2], sections[1::2], strict=True) if DOTTED in text}
    assert own == {"algorithms", "data sets", "models", "partitions", "samplers", "loggers"}
    assert {*sections[::2]} - own == {"availability", "draws of devices' figures", "presets"}


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run"], ["validate"]])
def test_wrong_usage(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: spatl" in capsys.readouterr().err


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("spatl ")


def test_list_answers_without_torch_or_ray() -> None:
    code = (
        "import sys; from spatl_ray.cli import main; main(['list']); "
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_run_says_where_its_results_are(tmp_path: Path, capsys: Capture) -> None:
    overrides = [*SMALL, "rounds=2", f"results.folder={tmp_path}"]
    assert main(["run", "demo", *overrides]) == 0
    run_id = load_experiment("demo", overrides).run_id
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"run {run_id}"
    assert [line[:14] for line in lines[1:3]] == ["round 0 (1 of ", "round 1 (2 of "]
    assert lines[-2:] == [
        f"results of run {run_id} are in {tmp_path}",
        f"to plot them: python analysis/plots.py {tmp_path}",
    ]


def test_a_run_that_is_there_is_refused(tmp_path: Path, capsys: Capture) -> None:
    arguments = ["run", "demo", *SMALL, "rounds=1", f"results.folder={tmp_path}"]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: run 'demo-spatl-")
    assert main([*arguments, "results.overwrite=true"]) == 0


def test_ctrl_c_leaves_readable_results(tmp_path: Path) -> None:
    overrides = [*SMALL, "rounds=100000", "results.flush_seconds=0", f"results.folder={tmp_path}"]
    command = [sys.executable, "-m", "spatl_ray.cli", "run", "demo", *overrides]
    # A shell that starts jobs in the background has them ignore Ctrl-C, and so would this process.
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=listening
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("round 2 "):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "run interrupted" in rest
    assert parquet.dataset(tmp_path / "rounds", partitioning="hive").count_rows() >= 3


def test_own_classes_are_found_in_the_current_folder(tmp_path: Path) -> None:
    """Through a script that lies elsewhere, as an installed `spatl` does."""
    script = tmp_path / "bin" / "spatl"
    script.parent.mkdir()
    script.write_text("import sys\nfrom spatl_ray.cli import main\nsys.exit(main())\n")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, shape, classes, width):\n"
        "        super().__init__()\n"
        "        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())\n"
        "        self.predictor = nn.Linear(width, classes)\n"
        "    def forward(self, x):\n"
        "        return self.predictor(self.body(x))\n"
    )
    options = ["model=net:Net", "model.options.width=8", "rounds=1", "engine.backend=serial"]
    done = subprocess.run(
        [sys.executable, str(script), "run", "demo", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "results" / "rounds").is_dir()


def test_a_reader_that_stops_is_no_error() -> None:
    """`spatl list | head -1`, with so small a reader that the pipe breaks."""
    command = f"{sys.executable} -u -m spatl_ray.cli list | head -1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "algorithms:\n"
    assert done.stderr == ""
