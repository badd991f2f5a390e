"""Golden values are worked out by hand from the accuracies and bytes a round that a test gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from analysis.aims import Like
from analysis.comparisons import MOST_PAIRED, accuracy, compared, cost, fairness, savings, targets
from analysis.formats import NOTHING, UNKNOWN, Spread, to_markdown
from analysis.load import LoadError
from analysis.metrics import GLOBAL, OWN
from analysis.significance import FEW, holm, signed_rank_p, significance
from analysis.summary import NOT_REACHED
from analysis.tables import WHAT, main, notes, tables

pytestmark = pytest.mark.integration

WriteRun = Callable[..., Path]
MB = 10**6
HALF = 2**-0.5
"""The deviation of two values that are 1 apart."""


@pytest.fixture
def two(tmp_path: Path, write_run: WriteRun) -> Path:
    """FedAvg and SPATL with seeds 0 and 1, and an interrupted third FedAvg."""

    def write(
        algorithm: str, seed: int, accuracies: list[float], up: int, **fields: object
    ) -> None:
        write_run(
            tmp_path, f"{algorithm}-{seed}", [(a, a / 2) for a in accuracies], up, up,
            algorithm=algorithm, seed=seed, **fields,
        )  # fmt: skip

    write("fedavg", 0, [0.25, 0.5, 0.75], 2 * MB, clients=[[0.0, 1.0], [0.5, 0.5], [0.5, 1.0]])
    write("fedavg", 1, [0.25, 0.25, 0.5], 2 * MB, clients=[[0.0], [0.0], [0.25, 0.75]])
    write("fedavg", 2, [1.0], 2 * MB, status="interrupted")
    write("spatl", 0, [0.5, 0.75, 0.875], MB, simulated=4.0)
    write("spatl", 1, [0.25, 0.25, 0.375], MB, simulated=8.0)
    return tmp_path


def _cells(table: pd.DataFrame, column: str) -> dict[str, object]:
    return dict(zip(table["method"], table[column], strict=True))


def test_a_target_may_be_what_other_methods_come_to(two: Path) -> None:
    """The mean of the last three evaluations of a seed: 0.5 and 1/3 of FedAvg, 17/24 and 7/24 of SPATL."""
    table = targets(compared(two, target=Like(["fedavg"], margin=0.1))).set_index("method")
    assert set(table["target"]) == {f"{OWN} >= 0.2333 to 0.4"}
    assert table["reached"].to_dict() == {"FedAvg": "2 of 2", "SPATL": "2 of 2"}
    rounds = {"FedAvg": Spread(1.5, HALF, 2), "SPATL": Spread(1.0, 0.0, 2)}
    assert table["rounds_to_target"].to_dict() == rounds
    both = compared(two, target=Like(["fedavg", "SPATL"])).runs.set_index("run_id")["target"]
    assert both["fedavg-0"] == both["spatl-0"] == f"{OWN} >= {(0.5 + 17 / 24) / 2:.4g}"
    assert both["fedavg-2"] == UNKNOWN  # SPATL has no third seed, and this one did not finish
    with pytest.raises(
        LoadError, match="target must be an algorithm or method of these runs, got 'x'"
    ):
        compared(two, target=Like(["x"]))


def test_the_command_line_names_what_to_be_like(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--what", "target", "--target-of", "fedavg", "--margin", "0.1"]
    assert main([str(two), *options]) == 0
    assert ">= 0.2333 to 0.4" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(two), "--target", "0.5", "--target-of", "fedavg"])


def test_accuracies_are_means_over_finished_seeds(two: Path) -> None:
    table = accuracy(compared(two))
    assert table.columns.tolist()[:6] == [
        *("dataset", "partition", "model", "method", "seeds", "unfinished")
    ]
    assert _cells(table, "seeds") == {"FedAvg": 2, "SPATL": 2}
    assert _cells(table, "unfinished") == {"FedAvg": 1, "SPATL": 0}
    assert _cells(table, "final_own_test_accuracy") == {
        "FedAvg": Spread(0.625, 0.25 * HALF, 2),
        "SPATL": Spread(0.625, 0.5 * HALF, 2),
    }
    assert _cells(table, "best_global_test_accuracy") == {
        "FedAvg": Spread(0.3125, 0.125 * HALF, 2),
        "SPATL": Spread(0.3125, 0.25 * HALF, 2),
    }


def test_the_target_is_the_worst_of_the_finished_runs_best(two: Path) -> None:
    """0.375 of spatl-1: reached in rounds 2 and 3 by FedAvg, 1 and 3 by SPATL."""
    table = targets(compared(two))
    assert set(table["target"]) == {"local_test_accuracy_mean >= 0.375"}
    assert _cells(table, "reached") == {"FedAvg": "2 of 2", "SPATL": "2 of 2"}
    assert _cells(table, "rounds_to_target") == {
        "FedAvg": Spread(2.5, HALF, 2),
        "SPATL": Spread(2.0, 2 * HALF, 2),
    }
    assert _cells(table, "MB_to_target") == {
        "FedAvg": Spread(10.0, 4 * HALF, 2),
        "SPATL": Spread(4.0, 4 * HALF, 2),
    }
    assert _cells(table, "simulated_seconds_to_target")["SPATL"] == Spread(14.0, 20 * HALF, 2)


def test_a_target_that_some_or_none_reach_is_said_so(two: Path) -> None:
    some = targets(compared(two, target=0.75))
    assert _cells(some, "reached") == {"FedAvg": "1 of 2", "SPATL": "1 of 2"}
    assert _cells(some, "rounds_to_target")["SPATL"] == Spread(
        2.0, pytest.approx(np.nan, nan_ok=True), 1
    )
    none = targets(compared(two, target=0.9, metric=GLOBAL))
    assert set(none["target"]) == {"global_test_accuracy >= 0.9"}
    assert set(none["MB_to_target"]) == {NOT_REACHED}
    assert "|  |" not in to_markdown(none)
    saved = savings(compared(two, target=0.9))
    assert set(saved["bytes_to_target_saved"]) == {f"baseline {NOT_REACHED}"}


def test_savings_are_paired_by_seed(two: Path) -> None:
    """SPATL sends half; to 0.375 it takes 2 of 8 MB with seed 0, and 6 of 12 MB with seed 1."""
    table = savings(compared(two), ["fedavg"])
    (row,) = table.to_dict("records")
    assert (row["method"], row["against"], row["seeds"]) == ("SPATL", "FedAvg", 2)
    assert row["bytes_saved"] == Spread(0.5, 0.0, 2)
    assert row["bytes_to_target_saved"] == Spread(0.625, 0.25 * HALF, 2)
    assert row["rounds_to_target_saved"] == Spread(0.25, 0.5 * HALF, 2)
    assert row["own_accuracy_gain"] == Spread(0.0, 0.25 * HALF, 2)
    both = savings(compared(two))
    assert _cells(both, "bytes_saved") == {
        "FedAvg": Spread(-1.0, 0.0, 2),
        "SPATL": Spread(0.5, 0.0, 2),
    }


def test_nothing_is_saved_against_silence_nor_without_a_common_seed(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, "avg", algorithm="fedavg")
    write_run(tmp_path, "silent", up=0, down=0, algorithm="local_only")
    write_run(tmp_path, "late", algorithm="spatl", seed=1)
    table = savings(compared(tmp_path)).set_index(["method", "against"])
    assert table.loc[("FedAvg", "Local only"), "bytes_saved"] == "baseline sent nothing"
    assert table.loc[("Local only", "FedAvg"), "bytes_saved"].mean == 1.0
    assert table.loc[("SPATL", "FedAvg"), "bytes_saved"] == "no common seed"


def test_fairness_is_over_clients_of_the_last_evaluated_round(two: Path) -> None:
    """0.5 and 1: p10 0.55, deviation 0.25, Jain 1.5^2 / (2 * 1.25); 0.25 and 0.75: 0.3 and 1 / 1.25."""
    table = fairness(compared(two)).set_index("method")
    row = table.loc["FedAvg"]
    assert row["clients_evaluated"] == Spread(2.0, 0.0, 2)
    assert row["worst_client"] == Spread(0.375, 0.25 * HALF, 2)
    assert row["std_over_clients"] == Spread(0.25, 0.0, 2)
    assert (row["p10"].mean, row["jain_index"].mean) == pytest.approx((0.425, (0.9 + 0.8) / 2))
    assert table.loc["SPATL", "p10"].n == 0, "no rows of clients"


def test_cost_by_hand(two: Path) -> None:
    """FedAvg: 6 and 4 client rounds of 10^12 operations; 3 rounds of half a second."""
    table = cost(compared(two)).set_index("method")
    assert table.loc["FedAvg", "MB_up"] == Spread(6.0, 0.0, 2)
    assert table.loc["FedAvg", "TFLOP"] == Spread(5.0, 2 * HALF, 2)
    assert table.loc["FedAvg", "seconds"] == Spread(1.5, 0.0, 2)
    assert table.loc["SPATL", "simulated_s_a_round"] == Spread(6.0, 4 * HALF, 2)
    assert "inference_flops_share" not in table, "nobody knows it"


def test_wilcoxon_by_hand(tmp_path: Path, write_run: WriteRun) -> None:
    """Five pairs, all of one sign: p = 2 / 2^5; with the one of least size against it: 4 / 2^5."""
    gains = {
        ("iid", 0): 0.1,
        ("iid", 1): 0.2,
        ("skew", 0): 0.3,
        ("skew", 1): 0.4,
        ("skew", 2): 0.05,
    }
    for (partition, seed), gain in gains.items():
        for algorithm, own in (("fedavg", 0.5), ("spatl", 0.5 + gain)):
            write_run(
                tmp_path, f"{algorithm}-{partition}-{seed}", [(own, own if gain > 0.05 else 0.4)],
                algorithm=algorithm, partition=partition, seed=seed,
            )  # fmt: skip
    own, whole = significance(compared(tmp_path)).to_dict("records")
    assert (own["method"], own["against"], own["pairs"]) == ("FedAvg", "SPATL", 5)
    assert (own["wins"], own["losses"]) == (0, 5)
    assert own["mean_difference"] == pytest.approx(-0.21)
    assert (own["p"], own["least_p"], own["p_holm"]) == (1 / 16, 1 / 16, 1 / 16)
    assert (whole["metric"], whole["losses"], whole["p"]) == (
        "final_global_test_accuracy",
        4,
        0.125,
    )


def test_a_pair_is_too_few_and_no_difference_is_no_evidence(
    tmp_path: Path, write_run: WriteRun
) -> None:
    for algorithm in ("fedavg", "spatl"):
        write_run(tmp_path, algorithm, algorithm=algorithm)
    assert set(significance(compared(tmp_path))["p"]) == {FEW}
    for algorithm in ("fedavg", "spatl"):
        write_run(tmp_path, f"{algorithm}1", algorithm=algorithm, seed=1)
    assert set(significance(compared(tmp_path))["p"]) == {1.0}


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_options_and_rounds_are_other_methods_and_settings(
    tmp_path: Path, write_run: WriteRun
) -> None:
    def config(keep: float, workers: int) -> str:
        return json.dumps({"algorithm": {"keep": keep}, "engine": {"workers": workers}})

    write_run(tmp_path, "a", algorithm="spatl", config=config(0.5, 1))
    write_run(tmp_path, "b", algorithm="spatl", config=config(0.5, 2), seed=1)
    write_run(tmp_path, "c", algorithm="spatl", config=config(1.0, 1))
    write_run(
        tmp_path, "d", algorithm="spatl", config=config(1.0, 1), evaluations=[(0.5, 0.25)] * 9
    )
    table = accuracy(compared(tmp_path))
    found = table[["rounds", "method", "seeds"]].to_dict("list")
    assert found == {
        "rounds": [1, 1, 9],
        "method": ["SPATL, keep 0.5", "SPATL, keep 1", "SPATL, keep 1"],
        "seeds": [2, 1, 1],
    }


def test_runs_that_never_ended_are_told_and_counted_nowhere(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, "a", status="running")
    write_run(tmp_path, "b", [(None, None)], status="failed", algorithm="spatl")
    made = tables(compared(tmp_path))
    assert made["accuracy"]["unfinished"].tolist() == [1, 1]
    assert made["accuracy"]["seeds"].tolist() == [0, 0]
    for table in made.values():
        text = to_markdown(table)
        assert "nan" not in text
        assert "|  |" not in text


def test_the_command_writes_each_format(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(two), "--what", "accuracy", "target"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("## Final and best accuracy")
    assert "| FedAvg | 2 | 1 | 0.62 ± 0.18 |" in printed
    assert main([str(two), "--what", "accuracy", "--format", "latex"]) == 0
    assert capsys.readouterr().out.startswith("\\begin{tabular}")
    out = tmp_path / "tables"
    assert main([str(two), "--format", "csv", "--out", str(out), "--baseline", "fedavg"]) == 0
    assert sorted(path.stem for path in out.iterdir()) == sorted(set(WHAT) - {"pareto"})
    saved = pd.read_csv(out / "savings.csv")
    assert saved["bytes_saved_mean"].tolist() == [0.5]
    tex = tmp_path / "two.tex"
    command = [str(two), "--what", "target", "savings", "--format", "latex", "--out", str(tex)]
    assert main(command) == 0
    assert tex.read_text().count("\\begin{tabular}") == 2


def test_rows_of_some_methods_are_shown(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(two), "--what", "accuracy", "target", "--of", "fedavg"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("| FedAvg |" in line for line in lines) == 2
    assert not any("SPATL" in line for line in lines)
    assert main([str(two), "--what", "runs", "--of", "fedavg"]) == 0
    assert "| spatl |" not in capsys.readouterr().out
    assert main([str(two), "--what", "savings", "--of", "fedavg", "--baseline", "fedavg"]) == 0
    assert "rows of these methods" in capsys.readouterr().out
    assert main([str(two), "--what", "accuracy"]) == 0
    assert "SPATL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "colour"], "metric must be one of local_test_accuracy_mean, panel"),
        (["--metric", "run_id"], "metric must be one of local_test_accuracy_mean, panel"),
        (
            ["--baseline", "fedsgd"],
            "baseline must be an algorithm or method of these runs, got 'fedsgd'",
        ),
        (["--of", "fedsgd"], "of must be an algorithm or method of these runs, got 'fedsgd'"),
    ],
)
def test_what_is_unknown_is_named(
    two: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([str(two), *options]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_config_that_is_no_object_is_refused(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "a", config="[1]")
    with pytest.raises(LoadError, match="the config of run 'a' is no JSON object"):
        compared(tmp_path)


def test_signed_ranks_by_hand() -> None:
    """|d| of 1, 2, 3: T+ is 0 to 6 in 1, 1, 1, 2, 1, 1, 1 of 8 ways. Ranks 1.5, 1.5, 3: 0, 1.5, 3, ..."""
    assert signed_rank_p(np.array([])) == 1.0
    assert signed_rank_p(np.array([-2.0])) == 1.0
    assert signed_rank_p(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert signed_rank_p(np.array([-1.0, 2.0, 3.0])) == 2 * 2 / 8
    assert signed_rank_p(np.array([-1.0, 1.0, 3.0])) == 2 * 3 / 8, "T+ 4.5 or 6: 3 of 8 ways"


@pytest.mark.parametrize("n", [5, 12, 40])
def test_signed_ranks_are_those_of_scipy(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1.0, n)
    assert signed_rank_p(differences) == pytest.approx(wilcoxon(differences).pvalue)


def test_rounding_of_floats_is_no_difference_and_breaks_no_tie(
    tmp_path: Path, write_run: WriteRun
) -> None:
    """0.1 + 0.2 is 0.3 but for the last bit: a pair without difference; three others are a tie."""
    pairs = [(0.1 + 0.2, 0.3), (0.5, 0.4), (0.7, 0.6), (0.3, 0.2)]
    for seed, (spatl, fedavg) in enumerate(pairs):
        write_run(tmp_path, f"s{seed}", [(spatl, 0.5)], algorithm="spatl", seed=seed)
        write_run(tmp_path, f"a{seed}", [(fedavg, 0.5)], algorithm="fedavg", seed=seed)
    own, whole = significance(compared(tmp_path), ["fedavg"]).to_dict("records")
    assert (own["method"], own["against"]) == ("SPATL", "FedAvg")
    assert (own["pairs"], own["wins"], own["losses"]) == (4, 3, 0)
    assert own["p"] == own["least_p"] == 2 / 2**3
    assert (whole["wins"], whole["p"], whole["least_p"]) == (0, 1.0, 1.0)


def test_a_search_is_compared_with_baselines_only(tmp_path: Path, write_run: WriteRun) -> None:
    """Of more methods than `MOST_PAIRED`, each with FedAvg, or with what is named; without any, none."""
    for i in range(MOST_PAIRED + 1):
        config = json.dumps({"algorithm": {"keep": i}})
        write_run(tmp_path, f"t{i:02}", algorithm="spatl", config=config)
    of = compared(tmp_path)
    assert NOTHING in savings(of)
    assert NOTHING in significance(of)
    assert notes(of) == [
        "Savings and significance of 21 methods are against none of them: name some with --baseline."
    ]
    assert notes(of, ["accuracy"]) == []
    assert savings(of, ["SPATL, keep 3"])["against"].tolist() == ["SPATL, keep 3"] * MOST_PAIRED
    write_run(tmp_path, "avg", algorithm="fedavg")
    of = compared(tmp_path)
    assert savings(of)["against"].tolist() == ["FedAvg"] * (MOST_PAIRED + 1)
    assert set(significance(of)["against"]) == {"FedAvg"}
    assert notes(of) == ["Savings and significance of 22 methods are against FedAvg only."]
