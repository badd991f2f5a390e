"""Golden values are worked out by hand from the accuracies and bytes a round that a test gives."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.formats import UNKNOWN, to_csv, to_markdown
from analysis.load import LoadError
from analysis.metrics import BETTER, GLOBAL, HIGHER, LOWER, OWN, PANEL, own_split
from analysis.summary import NO_FEDAVG, NOT_REACHED, summarise, summary
from spatl_ray.results.schema import file_schema

pytestmark = pytest.mark.integration

WriteRun = Callable[..., Path]
MakeFrames = Callable[..., tuple[pd.DataFrame, pd.DataFrame]]
MB = 10**6

FEDAVG = [(0.25, 0.25), (None, None), (0.75, 0.5), (0.5, 0.75)]
SPATL = [(0.5, 0.125), (0.875, 0.25), (0.75, None)]


def _two(make_frames: MakeFrames) -> tuple[pd.DataFrame, pd.DataFrame]:
    runs, rounds = make_frames(
        {
            "avg": ({"algorithm": "fedavg"}, FEDAVG, MB, 2 * MB),
            "spatl": ({"algorithm": "spatl", "status": "interrupted"}, SPATL, MB // 2, 2 * MB),
        }
    )
    return runs, rounds.assign(local_test_clients=[5, None, 7, 8, 5, 6, 7])


def test_summary_of_two_runs_by_hand(make_frames: MakeFrames) -> None:
    table = summarise(*_two(make_frames)).set_index("run_id")
    setting = {"dataset": "digits", "partition": "dirichlet(beta=0.3)", "model": "lenet", "seed": 0}
    target = {"target": "local_test_accuracy_mean >= 0.75"}
    assert table.loc["avg"].to_dict() == setting | target | {
        "status": "finished",
        "algorithm": "fedavg",
        "rounds": 4,
        "own_test_mean_over": "clients that have trained",
        "own_test_clients": 8.0,
        "final_own_test_accuracy": 0.5,
        "final_global_test_accuracy": 0.75,
        "best_own_test_accuracy": 0.75,
        "best_global_test_accuracy": 0.75,
        "MB_up": 4.0,
        "MB_down": 8.0,
        "seconds": 2.0,
        "rounds_to_target": 3,
        "MB_to_target": 9.0,
        "bytes_to_fedavg": 1.0,
    }
    assert table.loc["spatl"].to_dict() == setting | target | {
        "status": "interrupted",
        "algorithm": "spatl",
        "rounds": 3,
        "own_test_mean_over": "clients that have trained",
        "own_test_clients": 7.0,
        "final_own_test_accuracy": 0.75,
        "final_global_test_accuracy": 0.25,
        "best_own_test_accuracy": 0.875,
        "best_global_test_accuracy": 0.25,
        "MB_up": 1.5,
        "MB_down": 6.0,
        "seconds": 1.5,
        "rounds_to_target": 2,
        "MB_to_target": 5.0,
        "bytes_to_fedavg": 7.5 / 12,
    }


def test_a_target_of_one_metric_that_one_run_misses(make_frames: MakeFrames) -> None:
    table = summarise(*_two(make_frames), target=0.5, metric=GLOBAL).set_index("run_id")
    assert table["target"].unique().tolist() == ["global_test_accuracy >= 0.5"]
    assert table["rounds_to_target"].to_dict() == {"avg": 3, "spatl": NOT_REACHED}
    assert table["MB_to_target"].to_dict() == {"avg": 9.0, "spatl": NOT_REACHED}


def test_a_loss_is_reached_at_or_below_its_target(make_frames: MakeFrames) -> None:
    """The best of "avg" is 1.0, that of "spatl" 0.5, so that both reach 1.0."""
    runs, rounds = _two(make_frames)
    rounds["train_loss"] = [3.0, 2.0, 1.0, 1.5, 4.0, 1.0, 0.5]
    table = summarise(runs, rounds, metric="train_loss").set_index("run_id")
    assert table["target"].unique().tolist() == ["train_loss <= 1"]
    assert table["rounds_to_target"].to_dict() == {"avg": 3, "spatl": 2}
    assert table["MB_to_target"].to_dict() == {"avg": 9.0, "spatl": 5.0}
    table = summarise(runs, rounds, target=0.75, metric="train_loss").set_index("run_id")
    assert table["rounds_to_target"].to_dict() == {"avg": NOT_REACHED, "spatl": 3}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=5), min_size=1))
def test_every_evaluated_run_reaches_the_default_target(values: list[list[float | None]]) -> None:
    heads = pd.DataFrame(
        [
            {"run_id": f"r{i}", "status": "running", "algorithm": "fedavg", "dataset": "d"}
            | {"partition": "p", "model": "m", "seed": i, "clients": 1, "sample_ratio": 1.0}
            | {"rounds": 5}
            for i in range(len(values))
        ]
    )
    rows = [
        {"run_id": f"r{i}", "round": r, "local_test_accuracy_mean": v, "global_test_accuracy": v}
        | {"panel_local_test_accuracy_mean": None, "local_test_clients": 1, "panel_clients": 1}
        | {"bytes_up_cumulative": 1, "bytes_down_cumulative": 1}
        | {"seconds_total": 1.0, "simulated_seconds_cumulative": float("nan")}
        for i, run in enumerate(values)
        for r, v in enumerate(run)
    ]
    floats = dict.fromkeys([OWN, PANEL, GLOBAL], float)
    table = summarise(heads, pd.DataFrame(rows).astype(floats))
    for run, reached in zip(values, table["rounds_to_target"], strict=True):
        assert (reached == NOT_REACHED) == all(value is None for value in run)


def test_own_splits_compare_over_the_same_clients(make_frames: MakeFrames) -> None:
    """By those that have trained, "avg" with its two easy clients would win; over the panel it loses."""
    runs, rounds = make_frames(
        {
            "avg": ({"algorithm": "fedavg"}, [(0.9, 0.5), (0.8, 0.5)], MB, MB),
            "spatl": ({"algorithm": "spatl"}, [(0.7, 0.5), (0.75, 0.5)], MB, MB),
        }
    )
    rounds["panel_local_test_accuracy_mean"] = [0.4, 0.5, 0.6, 0.7]
    rounds["panel_clients"] = 10
    table = summarise(runs, rounds).set_index("run_id")
    assert table["final_own_test_accuracy"].to_dict() == {"avg": 0.5, "spatl": 0.7}
    assert table["best_own_test_accuracy"].to_dict() == {"avg": 0.5, "spatl": 0.7}
    assert set(table["own_test_mean_over"]) == {"clients of the panel"}
    assert set(table["own_test_clients"]) == {10}
    assert set(table["target"]) == {"panel_local_test_accuracy_mean >= 0.5"}


@pytest.mark.parametrize("lacking", [1, 3])
def test_without_the_panels_mean_in_some_round_no_run_is_compared_by_it(
    make_frames: MakeFrames, lacking: int
) -> None:
    """As in older results, and while clients that never trained are skipped."""
    once = [(0.5, 0.5), (0.75, 0.5)]
    _, rounds = make_frames({name: ({}, once, MB, MB) for name in ("a", "b")})
    rounds[PANEL] = [0.25, 0.5, 0.25, 0.5]
    assert own_split(rounds) == PANEL
    rounds.loc[lacking, PANEL] = float("nan")
    assert own_split(rounds) == OWN
    rounds.loc[lacking, OWN] = float("nan")
    assert own_split(rounds) == PANEL, "that round was not evaluated"
    assert own_split(rounds.iloc[:0]) == OWN


def test_fedavg_of_another_setting_is_no_yardstick(make_frames: MakeFrames) -> None:
    once = [(0.5, 0.5)]
    others: dict[str, dict[str, object]] = {
        "seed": {"seed": 1},
        "data": {"dataset": "other"},
        "cohort": {"sample_ratio": 0.5},
    }
    runs = {name: ({"algorithm": "fedavg"} | f, once, MB, MB) for name, f in others.items()}
    runs["spatl"] = ({"algorithm": "spatl"}, once, MB, MB)
    table = summarise(*make_frames(runs)).set_index("run_id")
    assert table.loc["spatl", "bytes_to_fedavg"] == NO_FEDAVG
    assert table.loc["seed", "bytes_to_fedavg"] == 1.0


def test_two_equal_fedavg_runs_and_a_silent_one_are_told(make_frames: MakeFrames) -> None:
    once = [(0.5, 0.5)]
    spatl = ({"algorithm": "spatl"}, once, MB, MB)
    avg = ({"algorithm": "fedavg"}, once, MB, MB)
    twice = summarise(*make_frames({"spatl": spatl, "a": avg, "b": avg}))
    assert twice["bytes_to_fedavg"].tolist() == ["2 FedAvg runs", 1.0, 1.0]
    silent = summarise(*make_frames({"spatl": spatl, "a": (avg[0], once, 0, 0)}))
    assert silent["bytes_to_fedavg"].tolist() == ["FedAvg sent nothing"] * 2


def test_an_unfinished_fedavg_run_is_no_yardstick(make_frames: MakeFrames) -> None:
    """Its bytes are those so far: SPATL, which sends less a round, would seem to have sent more."""
    runs = {
        "avg": ({"algorithm": "fedavg", "status": "interrupted"}, [(0.5, 0.5)], 2 * MB, 2 * MB),
        "spatl": ({"algorithm": "spatl"}, [(0.5, 0.5)] * 3, MB, MB),
    }
    table = summarise(*make_frames(runs)).set_index("run_id")
    assert table["bytes_to_fedavg"].to_dict() == {"avg": 1.0, "spatl": "FedAvg has not finished"}


@pytest.mark.parametrize("target", [float("nan"), float("inf")])
def test_a_target_is_finite(tmp_path: Path, write_run: WriteRun, target: float) -> None:
    write_run(tmp_path, "a")
    with pytest.raises(LoadError, match=f"target must be a finite number, got {target}"):
        summary(tmp_path, target)


def test_local_only_costs_nothing_to_the_target(make_frames: MakeFrames) -> None:
    runs = {
        "avg": ({"algorithm": "fedavg"}, FEDAVG, MB, MB),
        "local": ({"algorithm": "local_only"}, [(0.75, 0.25)], 0, 0),
    }
    row = summarise(*make_frames(runs)).set_index("run_id").loc["local"]
    assert (row["MB_up"], row["MB_down"], row["MB_to_target"]) == (0, 0, 0)
    assert (row["rounds_to_target"], row["bytes_to_fedavg"]) == (1, 0)


def test_simulated_seconds_stand_in_the_table_of_runs_with_devices(make_frames: MakeFrames) -> None:
    runs = {
        "plain": ({"algorithm": "fedavg"}, FEDAVG, MB, MB),
        "slow": ({"algorithm": "spatl"}, SPATL, MB, MB, 30.0),
        "never": ({"algorithm": "fedper"}, [(0.5, 0.5)] * 2, MB, MB, 8.0),
    }
    table = summarise(*make_frames(runs), target=0.75)
    names = list(table.columns)
    assert names[names.index("seconds") + 1] == "simulated_seconds"
    assert names[names.index("MB_to_target") + 1] == "simulated_seconds_to_target"
    table = table.set_index("run_id")
    assert table["simulated_seconds"].fillna(-1).to_dict() == {"plain": -1, "slow": 90, "never": 16}
    to_target = table["simulated_seconds_to_target"]
    assert (to_target["slow"], to_target["never"]) == (60, NOT_REACHED)
    assert pd.isna(to_target["plain"])
    cells = to_markdown(table.loc[["plain"], ["simulated_seconds_to_target"]]).splitlines()[-1]
    assert cells == f"| {UNKNOWN} |"
    assert to_csv(table.loc[["plain"], ["simulated_seconds"]]).endswith(f"\n{UNKNOWN}\n")
    del runs["slow"], runs["never"]
    without = summarise(*make_frames(runs), target=0.75)
    assert not [name for name in without.columns if "simulated" in name]


def test_runs_that_did_not_get_far_are_shown_without_blanks(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, "done", [(0.5, 0.25)])
    write_run(tmp_path, "begun", [], status="running", algorithm="spatl", rounds=1)
    write_run(tmp_path, "blind", [(None, None)], status="failed", algorithm="fedper", rounds=1)
    table = summary(tmp_path).set_index("run_id")
    assert table["status"].to_dict() == {"begun": "running", "blind": "failed", "done": "finished"}
    assert table["rounds"].to_dict() == {"begun": 0, "blind": 1, "done": 1}
    assert table.loc["begun", "rounds_to_target"] == NOT_REACHED
    assert table.loc["begun", "bytes_to_fedavg"] == 0
    for text in (to_markdown(table), to_csv(table).replace(",", " | ")):
        assert UNKNOWN in text
        assert "|  |" not in text
        assert "nan" not in text


@pytest.mark.parametrize("metric", ["accuracy", "run_id", "control_norm"])
def test_a_metric_must_have_a_direction(tmp_path: Path, write_run: WriteRun, metric: str) -> None:
    """Nothing is guessed from its name; the norm of a control variate is better neither way."""
    write_run(tmp_path, "a")
    told = "metric must be one of local_test_accuracy_mean, .*, train_loss, .*, got '" + metric
    with pytest.raises(LoadError, match=told):
        summary(tmp_path, metric=metric)
    with pytest.raises(LoadError, match="holds no results"):
        summary(tmp_path / "rounds")


def test_every_metric_is_a_number_of_table_rounds() -> None:
    schema = file_schema("rounds")
    assert all(pa.types.is_floating(schema.field(name).type) for name in BETTER)
    assert set(BETTER.values()) == {HIGHER, LOWER}


def test_csv_keeps_every_bit(make_frames: MakeFrames) -> None:
    table = summarise(*_two(make_frames))
    table["MB_up"] = [0.1 + 0.2, 1 / 3]
    back = pd.read_csv(StringIO(to_csv(table)))
    assert back["MB_up"].tolist() == [0.1 + 0.2, 1 / 3]
    assert back["bytes_to_fedavg"].tolist() == [1, 0.625]
