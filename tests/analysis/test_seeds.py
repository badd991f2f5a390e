"""What counts as a seed, and which runs are in means; golden values are worked out by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.comparisons import accuracy, compared, cost, savings, targets
from analysis.curves import curves
from analysis.formats import Spread, to_csv, to_markdown
from analysis.lines import rounds_figure
from analysis.metrics import OWN
from analysis.pareto import trials
from analysis.report import report
from analysis.significance import significance
from analysis.spreads import clients_figure
from analysis.summary import NOT_REACHED
from analysis.tables import main, notes, tables

pytestmark = pytest.mark.integration

WriteRun = Callable[..., Path]
MakeFrames = Callable[..., tuple[pd.DataFrame, pd.DataFrame]]
MB = 10**6
HALF = 2**-0.5
"""The deviation of two values that are 1 apart."""


@pytest.fixture
def repeated(tmp_path: Path, write_run: WriteRun) -> Path:
    """FedAvg: seed 0 in three runs that end at 0.25, 0.5 and 0.75, seed 1 in one at 1; SPATL: at 1."""
    for run_id, seed, final in (("a", 0, 0.25), ("b", 0, 0.5), ("c", 0, 0.75), ("d", 1, 1.0)):
        write_run(tmp_path, run_id, [(final, final)], MB, MB, seed=seed)
    for seed in (0, 1):
        write_run(tmp_path, f"s{seed}", [(1.0, 1.0)], MB, 0, seed=seed, algorithm="spatl")
    return tmp_path


def test_runs_that_repeat_a_seed_are_one_seed(repeated: Path) -> None:
    """Seed 0 stands for 0.5, so that FedAvg is 0.75 +- 0.5 / sqrt(2) of two seeds."""
    of = compared(repeated, target=0.5)
    table = accuracy(of).set_index("method")
    assert table.loc["FedAvg", "seeds"] == 2
    assert table.loc["FedAvg", "final_own_test_accuracy"] == Spread(0.75, 0.5 * HALF, 2)
    assert cost(of).set_index("method").loc["FedAvg", "MB_up"] == Spread(1.0, 0.0, 2)
    reached = targets(of).set_index("method").loc["FedAvg"]
    assert reached["reached"] == "1 of 2", "a run of seed 0 does not reach it"
    (saved,) = savings(of, ["fedavg"]).to_dict("records")
    assert (saved["seeds"], saved["bytes_saved"]) == (2, Spread(0.5, 0.0, 2))
    assert saved["own_accuracy_gain"] == Spread(0.25, 0.5 * HALF, 2)
    tested = significance(of).set_index("metric").loc["final_own_test_accuracy"]
    assert (tested["pairs"], tested["losses"]) == (2, 1), "of two seeds, one is alike"


def test_a_band_is_over_seeds(make_frames: MakeFrames) -> None:
    fields = {"a": (0, 0.25), "b": (0, 0.5), "c": (0, 0.75), "d": (1, 1.0)}
    runs, rounds = make_frames(
        {run_id: ({"seed": seed}, [(own, own)], MB, MB) for run_id, (seed, own) in fields.items()}
    )
    (curve,) = curves(runs, rounds)
    assert curve.seeds == 2
    assert curve.final(OWN) == 0.75
    (point,) = curve.points("round", OWN).to_dict("records")
    assert point == {"x": 0, "mean": 0.75, "low": 0.75 - 0.5 * HALF, "high": 0.75 + 0.5 * HALF}
    figure = rounds_figure([curve], [OWN])
    assert figure.legends[0].get_texts()[-1].get_text().startswith("mean of 2 seeds")
    values = pd.DataFrame(
        {"run_id": list("abcd"), "client": 0, "local_test_accuracy": [0, 0, 0, 1.0]}
    )
    (line,) = clients_figure([curve], values).axes[0].get_lines()
    np.testing.assert_array_equal(
        line.get_ydata(), [0, 0.5, 1.0], "half of the seeds, not a quarter"
    )


@pytest.fixture
def torn(tmp_path: Path, write_run: WriteRun) -> Path:
    """Two finished runs of three rounds; of the second one, only the first round's file was copied."""
    results = tmp_path / "results"
    write_run(results, "whole", [(0.5, 0.5)] * 3, MB, MB)
    write_run(results, "torn", [(1.0, 1.0)] * 3, MB, MB, seed=1)
    part = write_run(tmp_path / "part", "torn", [(1.0, 1.0)], MB, MB, seed=1)
    shutil.rmtree(results / "rounds" / "run_id=torn")
    shutil.move(part / "rounds" / "run_id=torn", results / "rounds" / "run_id=torn")
    return results


def test_a_finished_run_that_lacks_rounds_is_incomplete_and_in_no_mean(torn: Path) -> None:
    of = compared(torn)
    made = tables(of)
    (row,) = made["accuracy"].to_dict("records")
    assert (row["seeds"], row["incomplete"]) == (1, 1)
    assert row["final_own_test_accuracy"].mean == 0.5
    assert made["cost"]["MB_up"].tolist()[0].mean == 3.0
    runs = made["runs"].set_index("run_id")
    assert runs["status"].to_dict() == {"torn": "incomplete", "whole": "finished"}
    assert runs["rounds"].to_dict() == {"torn": 1, "whole": 3}
    numbers = ["final_own_test_accuracy", "best_global_test_accuracy", "MB_up", "rounds_to_target"]
    assert runs.loc["torn", numbers].isna().all()
    assert runs.loc["torn", "target"] == "local_test_accuracy_mean >= 0.5", "not 1.0"
    assert notes(of) == ["Runs that finished and lack rounds are in no mean: torn (1 of 3 rounds)."]
    assert "nan" not in to_markdown(made["runs"])


def test_a_run_without_any_round_is_incomplete_and_told_everywhere(
    torn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its bytes are not known, and so not 0."""
    shutil.rmtree(torn / "rounds" / "run_id=torn")
    assert main([str(torn), "--what", "accuracy", "runs"]) == 0
    out, error = capsys.readouterr()
    told = "Runs that finished and lack rounds are in no mean: torn (0 of 3 rounds)."
    assert out.startswith(told)
    assert error == f"note: {told}\n"
    assert tables(compared(torn), ["runs"])["runs"].set_index("run_id")["MB_up"].isna()["torn"]
    page = report(torn)
    assert told in page
    assert "2 runs: 1 incomplete, 1 finished." in page or "1 finished, 1 incomplete." in page


def test_flops_of_half_of_the_clients_rows_are_not_known(
    tmp_path: Path, write_run: WriteRun
) -> None:
    """Of three rounds with 10^12 operations each, one file was not copied."""
    for seed in (0, 1):
        write_run(tmp_path, f"a{seed}", [(0.5, 0.5)] * 3, clients=[[0.5]] * 3, seed=seed)
    part = write_run(tmp_path / "part", "a1", [(0.5, 0.5)] * 2, clients=[[0.5]] * 2, seed=1)
    shutil.rmtree(tmp_path / "clients" / "run_id=a1")
    shutil.move(part / "clients" / "run_id=a1", tmp_path / "clients" / "run_id=a1")
    (flops,) = cost(compared(tmp_path))["TFLOP"]
    assert str(flops) == "3 (1 of 2 seeds)"


def test_runs_that_a_scheduler_stopped_stay_interrupted(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, "a", [(0.5, 0.5)], status="interrupted", trial_id="t0", sweep_id="s")
    row = tables(compared(tmp_path), ["runs"])["runs"].iloc[0]
    assert (row["status"], row["MB_up"], row["final_own_test_accuracy"]) == (
        "interrupted",
        1.0,
        0.5,
    )


def test_savings_to_a_target_say_which_seeds_reach_it(tmp_path: Path, write_run: WriteRun) -> None:
    """At 0.5, SPATL misses seed 1 and 2; it saves half of the bytes with seed 0, which is not its mean."""
    for seed in (0, 1, 2):
        write_run(tmp_path, f"a{seed}", [(0.5, 0.5)], MB, MB, seed=seed)
        own = 0.5 if seed == 0 else 0.25
        write_run(tmp_path, f"s{seed}", [(own, own)], MB, 0, seed=seed, algorithm="spatl")
    (row,) = savings(compared(tmp_path, target=0.5), ["fedavg"]).to_dict("records")
    saved = row["bytes_to_target_saved"]
    assert (saved.mean, saved.n, saved.missing) == (0.5, 1, 2)
    assert str(saved) == "0.5 (1 of 3 seeds)"
    assert str(row["bytes_saved"]) == "0.5 ± 0"
    (turned,) = savings(compared(tmp_path, target=0.5), ["spatl"]).to_dict("records")
    assert str(turned["bytes_to_target_saved"]) == "-1 (1 of 3 seeds)"
    (none,) = savings(compared(tmp_path, target=0.75), ["fedavg"]).to_dict("records")
    assert none["bytes_to_target_saved"] == f"baseline {NOT_REACHED}"
    assert ",0.5,not known,1," in to_csv(pd.DataFrame([row]))


def test_each_setting_has_its_own_target_in_every_table(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, "easy", [(0.75, 0.5)], partition="iid")
    write_run(tmp_path, "hard", [(0.25, 0.5)], partition="skew")
    made = tables(compared(tmp_path), ["target", "runs"])
    aims = ["local_test_accuracy_mean >= 0.75", "local_test_accuracy_mean >= 0.25"]
    assert made["target"]["target"].tolist() == aims
    assert made["runs"]["target"].tolist() == aims
    given = tables(compared(tmp_path, 0.5), ["runs"])["runs"]
    assert given["rounds_to_target"].tolist() == [1, NOT_REACHED]


def test_a_trial_that_went_on_as_another_run_is_one_point(make_frames: MakeFrames) -> None:
    """As PBT has it: t0 was cloned after its second round, under another learning rate."""
    trial = {"sweep_id": "night", "trial_id": "t0"}
    runs, rounds = make_frames(
        {
            "z": (trial | {"status": "interrupted"}, [(0.5, 0.5)] * 2, MB, MB),
            "a": (trial, [(0.5, 0.5)] * 3, MB, MB),
            "b": (trial | {"trial_id": "t1", "status": "interrupted"}, [(0.5, 0.5)], MB, MB),
            "c": (trial | {"trial_id": "t1", "status": "interrupted"}, [(0.5, 0.5)] * 2, MB, MB),
        }
    )
    rounds["local_validation_accuracy_mean"] = 0.5
    table = trials(runs, rounds)
    assert table[["trial_id", "run_id", "megabytes"]].to_dict("list") == {
        "trial_id": ["t0", "t1"], "run_id": ["a", "c"], "megabytes": [6.0, 4.0],
    }  # fmt: skip


def test_runs_without_a_row_in_table_runs_are_named(tmp_path: Path, write_run: WriteRun) -> None:
    for run_id in ("a", "orphan"):
        write_run(tmp_path, run_id, [(0.5, 0.5)])
    shutil.rmtree(tmp_path / "runs" / "run_id=orphan")
    assert notes(compared(tmp_path)) == ["Left out, for they have no row in table runs: orphan."]


def test_a_legend_counts_single_seeds_too(make_frames: MakeFrames) -> None:
    fields = {"a": ("fedavg", 0), "b": ("fedavg", 1), "c": ("spatl", 0)}
    runs = {
        run_id: ({"algorithm": algorithm, "seed": seed}, [(0.5, 0.5)], MB, MB)
        for run_id, (algorithm, seed) in fields.items()
    }
    figure = rounds_figure(curves(*make_frames(runs)), [OWN])
    assert figure.legends[0].get_texts()[-1].get_text().startswith("mean of 1 to 2 seeds")


def test_a_trial_that_was_cloned_is_its_last_run(tmp_path: Path, write_run: WriteRun) -> None:
    """Population-based training leaves the runs that a trial went on from."""
    trial = {"sweep_id": "s", "trial_id": "t000"}
    write_run(tmp_path, "t000", [(0.1, 0.1)], MB, MB, status="interrupted", **trial)
    write_run(tmp_path, "t000-1", [(0.1, 0.1), (0.5, 0.5)], MB, MB, **trial)
    write_run(tmp_path, "t001", [(0.2, 0.2)], MB, MB, **(trial | {"trial_id": "t001"}))
    write_run(tmp_path, "none", [(0.3, 0.3)], MB, MB, status="interrupted")
    assert sorted(compared(tmp_path).runs["run_id"]) == ["none", "t000-1", "t001"]
