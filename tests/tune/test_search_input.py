"""The command line of a search: what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.search import main

SPACE = "training.lr: {loguniform: [1e-3, 1e-1]}\n"
QUICK = ["demo", "model=mlp", "algorithm=fedavg", "rounds=2"]


def refused(
    folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str, space: str = SPACE
) -> str:
    """What the command says; it must have written nothing."""
    file = folder / "space.yaml"
    file.write_text(space, encoding="utf-8")
    results = folder / "results"
    argv = [*QUICK, f"results.folder={results}", "--space", str(file), *arguments]
    assert main(argv) == 2
    assert not results.exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "global_test_accuracy"], "objectives read validation data only"),
        (["--objective", "acuracy"], "did you mean 'accuracy'?"),
        (["data.split={train: 0.7, validation: 0, test: 0.3}"], "data.split.validation must be"),
        (["training.lrr=1"], "training.lrr is no field of training; did you mean training.lr"),
        (["model=mlpp"], "model.name must be one of"),
        (
            ["results.folder=s3://bucket/x"],
            "results.folder must be a folder in a search or a sweep",
        ),
        (["--search", "grid"], "training.lr must say into how many values a grid cuts it"),
        (["--name", "so so"], "--name must be made of letters"),
        (["--name", ".."], "and not be . or .., got '..'"),
        (["--name", "."], "and not be . or .., got '.'"),
        (["--search", "grid", "--scheduler", "pbt"], "--search must not be grid with"),
        (["--concurrent", "2", "--scheduler", "pbt"], "--concurrent must not be given with"),
        (["--objective", "inference_flops"], "as spatl does with algorithm.inference or"),
        (["--grace", "3"], "--grace must be at most 2, got 3"),
        (["--reduction", "1"], "--reduction must be greater than 1, got 1"),
        (
            ["--scheduler", "asha-bytes", "algorithm=local_only"],
            "needs an algorithm that sends bytes",
        ),
        (["engine={backend: serial, client_timeout: 5}"], "engine.client_timeout must be null"),
        (["--resume"], "--resume needs a search 'demo-fedavg', got none"),
        (["--scheduler", "pbt", "engine.backend=ray", "engine.state_mirror=true"], "state_mirror"),
    ],
)
def test_bad_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refused(tmp_path, capsys, *arguments)


@pytest.mark.parametrize(
    ("space", "arguments", "message"),
    [
        ("", [], "must hold at least one range"),
        ("trainnig.lr: {uniform: [0.1, 0.2]}", [], "trainnig is no field of an experiment"),
        ("algorithm.keep: {uniform: [0.1, 0.2]}", [], "algorithm.keep is no field of fedavg"),
        (
            "data.split: {train: 0.8, validation: 0.0, test: 0.2}\n" + SPACE,
            [],
            "data.split must be one of uniform",
        ),
        ("data.split.validation: 0\ndata.split.test: 0.4\n" + SPACE, [], "validation data only"),
        (
            "algorithm: {choice: [fedavg, {name: spatl, inference: {}}]}",
            ["--objective", "inference_flops"],
            "got fedavg: it measures none",
        ),
        ("training.epochs: {int: [1, 3]}", ["--scheduler", "pbt"], "with pbt, which changes it"),
    ],
)
def test_bad_spaces(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    space: str,
    arguments: list[str],
    message: str,
) -> None:
    assert message in refused(tmp_path, capsys, *arguments, space=space)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "--seed: must be in [0, 4294967296), got -1"),
        (["--max-failures", "-1"], "--max-failures: must be at least 0, got -1"),
        (["--trials", "0"], "--trials: must be at least 1, got 0"),
    ],
)
def test_bad_numbers(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*QUICK, *arguments])
    assert message in capsys.readouterr().err


def test_results_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main([*QUICK, f"results.folder={tmp_path / 'file'}"]) == 2
    assert "results.folder must be a place that can be written" in capsys.readouterr().err
