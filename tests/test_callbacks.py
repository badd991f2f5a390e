"""Who listens to a run, and what comes of one that raises."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from small_runs import small, table

import spatl_ray
from spatl_ray.callbacks import Callback
from spatl_ray.loggers.tensorboard import TensorBoard
from spatl_ray.progress import Progress
from spatl_ray.results.schema import TABLES

Row = Mapping[str, object]
MOMENTS = [name for name in vars(Callback) if not name.startswith("_")]


class Notes(Callback):
    """Overrides two methods only."""

    def __init__(self) -> None:
        self.rounds: list[Row] = []
        self.ends: list[str] = []

    def round_ended(self, row: Row) -> None:
        self.rounds.append(row)

    def run_ended(self, status: str) -> None:
        self.ends.append(status)


class Clients(Callback):
    """Notes what it is told of clients, and in which order."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.rows: dict[int, Sequence[Row]] = {}

    def clients_ended(self, round_: int, rows: Sequence[Row]) -> None:
        self.order.append(f"clients {round_}")
        self.rows[round_] = rows

    def round_ended(self, row: Row) -> None:
        self.order.append(f"round {row['round']}")


def raising(moment: str, error: BaseException) -> Callback:
    """A callback of which one method raises."""

    def method(self: Callback, *told: object) -> None:
        raise error

    return type("Raising", (Callback,), {moment: method})()


def test_the_name_is_public() -> None:
    assert spatl_ray.Callback is Callback


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("made", [Progress, TensorBoard])
def test_callbacks_take_what_is_told(made: type[Callback], moment: str) -> None:
    """A method of another signature would fail, one of another name would never be called."""
    told = inspect.signature(getattr(Callback, moment))
    assert inspect.signature(getattr(made, moment)) == told
    assert {name for name in vars(made) if not name.startswith("_")} <= {*MOMENTS, "close"}


def test_an_own_one_overrides_what_it_needs(tmp_path: Path) -> None:
    notes = Notes()
    spatl_ray.run(small(tmp_path, rounds=2, evaluation={"every": 2}), callbacks=[notes])
    assert notes.ends == ["finished"]
    assert [row["round"] for row in notes.rounds] == [0, 1]
    assert all(set(row) == set(TABLES["rounds"].names) - {"run_id"} for row in notes.rounds)
    assert [row["local_test_accuracy_mean"] is None for row in notes.rounds] == [True, False]
    assert {row["simulated_seconds"] for row in notes.rounds} == {None}


def test_clients_are_told_before_their_round(tmp_path: Path) -> None:
    clients = Clients()
    experiment = small(tmp_path, rounds=2, sample_ratio=0.5, evaluation={"every": 2})
    spatl_ray.run(experiment, callbacks=[clients])
    assert clients.order == ["clients 0", "round 0", "clients 1", "round 1"]
    rows = [row for round_ in (0, 1) for row in clients.rows[round_]]
    assert all(set(row) == set(TABLES["clients"].names) - {"run_id"} for row in rows)
    written = table(tmp_path, "clients")
    assert [row["client"] for row in rows] == written["client"].tolist()
    absent = [row for row in rows if not row["participated"]]
    assert absent
    assert {row["train_loss"] for row in absent} == {None}


@pytest.mark.parametrize(
    ("moment", "rounds"), [("run_started", 0), ("clients_done", 0), ("round_ended", 1)]
)
def test_one_that_raises_ends_the_run_as_failed(tmp_path: Path, moment: str, rounds: int) -> None:
    notes = Notes()
    with pytest.raises(LookupError, match="the disk of the logger is full"):
        spatl_ray.run(
            small(tmp_path),
            callbacks=[raising(moment, LookupError("the disk of the logger is full")), notes],
        )
    assert notes.ends == ["failed"]
    (row,) = table(tmp_path, "runs").to_dict("records")
    assert (row["status"], row["error"]) == (
        "failed",
        "LookupError: the disk of the logger is full",
    )
    assert len(list((tmp_path / "rounds").rglob("*.parquet"))) == rounds
    if rounds:
        assert table(tmp_path, "rounds")["round"].tolist() == [0]


def test_an_interrupt_from_within_ends_the_run_as_ctrl_c(tmp_path: Path) -> None:
    stop = raising("round_ended", KeyboardInterrupt())
    assert spatl_ray.run(small(tmp_path), callbacks=[stop]).status == "interrupted"
    assert table(tmp_path, "rounds")["round"].tolist() == [0]
