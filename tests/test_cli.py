"""The command line: what it prints, where, and with which exit status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as parquet
import pytest
import stopping

import spatl_ray.cli
from spatl_ray.cli import main
from spatl_ray.config import BUILT_IN, Experiment
from spatl_ray.data.datasets import BUILT_IN as DATA_SETS_THERE_ARE
from spatl_ray.experiments import load_experiment, presets
from spatl_ray.fields import kinds
from spatl_ray.listing import DATA_SETS, DOTTED, LOGGERS, MODELS
from spatl_ray.loggers.registry import LOGGERS as LOGGERS_THERE_ARE
from spatl_ray.models.split import MODELS as MODELS_THERE_ARE

pytestmark = pytest.mark.integration

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


def test_clients_that_are_asked_on_top_cost_as_much(capsys: Capture) -> None:
    """All that are asked download, train and send; the clients' rows of a run are as many."""
    fields = ["rounds=7", "clients=20", "sample_ratio=0.25", "devices={}"]
    assert main(["validate", "demo", *fields, "stragglers.oversample=1.3"]) == 0
    out = capsys.readouterr().out
    assert "# cohort: 5 of 20 clients a round, of 7 that are asked\n" in out
    assert "# cost: 7 rounds, 49 client rounds of 2 local epochs\n" in out


def test_with_availability_the_cost_is_an_upper_bound(capsys: Capture) -> None:
    fields = ["rounds=7", "clients=20", "sample_ratio=0.25", "availability.name=random"]
    assert main(["validate", "demo", *fields]) == 0
    assert "# cost: 7 rounds, at most 35 client rounds of" in capsys.readouterr().out


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
    named = ("partition", "sampler", "availability", "attack")
    sections = [kinds(Experiment.model_fields[n]) for n in named]
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
    rest = {"availability", "attacks", "draws of devices' figures", "presets"}
    assert {*sections[::2]} - own == rest


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


def test_list_answers_and_progress_is_told_without_torch_or_ray() -> None:
    code = (
        "import sys; from spatl_ray.cli import main; main(['list']); import spatl_ray.progress; "
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_run_says_where_its_results_are(tmp_path: Path, capsys: Capture) -> None:
    overrides = [*SMALL, "rounds=2", f"results.folder={tmp_path}"]
    assert main(["run", "demo", *overrides]) == 0
    run_id = load_experiment("demo", overrides).run_id
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "importing torch ...",
        "loading data ...",
        "building the model ...",
        f"run {run_id}",
    ]
    assert [line[:14] for line in lines[4:6]] == ["round 0 (1 of ", "round 1 (2 of "]
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


ENDLESS = ("rounds=100000", "results.flush_seconds=3600")
"""Rows that were only buffered count: a flush would be due after an hour."""
STOPPED = [("CtrlC", 130), ("Terminate", 143), ("HangUp", 129)]


@pytest.fixture
def listening() -> Iterator[None]:
    with stopping.listening():
        yield


def ended(folder: Path) -> str:
    """The status of the one run, of which all rows must be there."""
    assert parquet.dataset(folder / "rounds", partitioning="hive").count_rows() >= 3
    (run,) = parquet.dataset(folder / "runs", partitioning="hive").to_table().to_pylist()
    assert run["end"] is not None
    return str(run["status"])


def check_interrupted(folder: Path, capsys: Capture, logger: str, status: int) -> None:
    """A run that its logger stops ends with the exit status, and says so in its results."""
    options = [
        *SMALL,
        *ENDLESS,
        f"results.folder={folder}",
        f"results.loggers=[stopping:{logger}]",
    ]
    assert main(["run", "demo", *options]) == status
    assert "run interrupted" in capsys.readouterr().out
    assert ended(folder) == "interrupted"


@pytest.mark.parametrize(("logger", "status"), STOPPED)
@pytest.mark.usefixtures("listening")
def test_what_stops_a_run_leaves_readable_results(
    tmp_path: Path, capsys: Capture, logger: str, status: int
) -> None:
    check_interrupted(tmp_path, capsys, logger, status)


@pytest.mark.parametrize(("logger", "status"), STOPPED)
@pytest.mark.usefixtures("listening")
def test_more_signals_do_not_cut_short_how_a_run_ends(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, logger: str, status: int
) -> None:
    """The first one gives the exit status, and none can end the interpreter as it closes."""
    stopping.send_during(monkeypatch, "finish", *stopping.SIGNALS)
    check_interrupted(tmp_path, capsys, logger, status)
    assert {signal.getsignal(number) for number in stopping.SIGNALS} == {signal.SIG_IGN}


@pytest.mark.parametrize("number", stopping.SIGNALS)
@pytest.mark.usefixtures("listening")
def test_a_signal_while_a_finished_run_is_closed_ends_the_command_after_that(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    stopping.send_during(monkeypatch, "finish", number)
    assert main(["run", "demo", *SMALL, "rounds=3", f"results.folder={tmp_path}"]) == 128 + number
    captured = capsys.readouterr()
    assert "run finished" in captured.out
    assert captured.err == "interrupted\n"
    assert ended(tmp_path) == "finished"


@pytest.mark.usefixtures("listening")
def test_what_was_ignored_stops_nothing(tmp_path: Path) -> None:
    """As nohup ignores what a closed terminal sends."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    options = ["rounds=4", f"results.folder={tmp_path}", "results.loggers=[stopping:HangUp]"]
    assert main(["run", "demo", *SMALL, *options]) == 0
    assert ended(tmp_path) == "finished"


@pytest.mark.usefixtures("listening")
def test_a_closed_terminal_does_not_fail_what_is_said_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = os.openpty()

    def closed(*_: object) -> None:
        os.close(master)

    monkeypatch.setattr(stopping.HangUp, "clients_ended", closed)
    options = [*SMALL, *ENDLESS, f"results.folder={tmp_path}", "results.loggers=[stopping:HangUp]"]
    monkeypatch.setattr(stopping, "LAST", 0)
    with open(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main(["run", "demo", *options]) == 129
    (run,) = parquet.dataset(tmp_path / "runs", partitioning="hive").to_table().to_pylist()
    assert run["status"] == "interrupted"


def test_a_held_ctrl_c_ends_the_process_as_one_does(tmp_path: Path) -> None:
    """Sent until the process is gone: also while the results are closed and the interpreter ends."""
    options = [*SMALL, *ENDLESS, f"results.folder={tmp_path}"]
    with stopping.listening():  # else an ignored Ctrl-C would be inherited
        process = subprocess.Popen(
            [sys.executable, "-m", "spatl_ray.cli", "run", "demo", *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("round 3 "))
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert "run interrupted" in out
    assert ended(tmp_path) == "interrupted"


def test_signals_are_the_callers_again_afterwards(capsys: Capture) -> None:
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    assert main(["list"]) == 0
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before


@pytest.mark.parametrize("number", stopping.SIGNALS)
@pytest.mark.usefixtures("listening")
def test_a_signal_before_the_first_round_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, number: signal.Signals
) -> None:
    def killed(*_: object) -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)
        raise AssertionError("not stopped")

    monkeypatch.setattr(spatl_ray.cli, "load_experiment", killed)
    assert main(["run", "demo"]) == 128 + number
    assert capsys.readouterr().err == "interrupted\n"


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
    options = [
        "model=net:Net",
        "model.options.width=8",
        "rounds=1",
        "clients=2",
        "engine.backend=serial",
    ]
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
