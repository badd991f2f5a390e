"""The command line of plots.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.metrics import GLOBAL
from analysis.plots import Drawing, figures, main

pytestmark = pytest.mark.integration

WriteRun = Callable[..., Path]

SCRIPT = Path(__file__).resolve().parents[2] / "analysis" / "plots.py"
PNG = b"\x89PNG\r\n\x1a\n"
AVG = [(0.25, 0.125), (None, 0.25), (0.5, 0.375)]


def test_the_script_runs_from_any_folder_without_a_display(
    tmp_path: Path, write_run: WriteRun
) -> None:
    results = write_run(tmp_path / "results", "a", AVG)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(results)],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table, _, paths = done.stdout.partition("\n\n")
    stems = ("accuracy_rounds", "accuracy_bytes", "bytes_to_target", "seconds_by_phase")
    names = [*(f"{stem}.png" for stem in stems), "summary.md", "summary.csv"]
    assert [Path(line) for line in paths.splitlines()] == [results / "plots" / n for n in names]
    assert table.split()[:3] == ["status", "algorithm", "dataset"]
    markdown = (results / "plots" / "summary.md").read_text()
    assert markdown.startswith("| run_id | status | algorithm |")
    for stem in stems:
        assert (results / "plots" / f"{stem}.png").read_bytes().startswith(PNG)


def test_options_choose_folder_format_metric_and_target(
    tmp_path: Path, write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_run(tmp_path / "results", "a", AVG)
    out = tmp_path / "pictures"
    options = ["--format", "svg", "--metric", GLOBAL, "--target", "0.25", "--no-show-table"]
    assert main([str(results), "--out", str(out), *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(out / "accuracy_rounds.svg")
    assert "<svg" in (out / "accuracy_bytes.svg").read_text()
    summary = pd.read_csv(out / "summary.csv")
    assert summary["target"].tolist() == ["global_test_accuracy >= 0.25"]
    assert summary["rounds_to_target"].tolist() == [2]
    assert not (results / "plots").exists()


def test_what_cannot_be_read_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "missing")]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"error: there is no results folder {tmp_path / 'missing'}\n"
    assert captured.out == ""


def test_a_named_picture_without_data_is_refused(
    tmp_path: Path, write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_run(tmp_path / "results", "a", AVG)
    assert main([str(results), "--what", "pareto"]) == 1
    assert capsys.readouterr().err == "error: these runs have no data for picture 'pareto'\n"
    assert not (results / "plots").exists()


def test_a_target_that_nobody_reaches_is_a_picture_that_says_so(
    tmp_path: Path, write_run: WriteRun
) -> None:
    results = write_run(tmp_path / "results", "a", AVG)
    (figure,) = figures(Drawing(results, target=0.99), ["target"]).values()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["not reached (0 of 1 seeds)"]
    assert axes.get_xlim()[1] > 1, "an axis in MB"
