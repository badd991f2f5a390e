"""Who listens to a run, and what comes of one that raises."""

from __future__ import annotations

import inspect
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import stopping
from small_runs import small, table

import spatl_ray
from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError, PluginError
from spatl_ray.loggers.named import Named
from spatl_ray.loggers.tensorboard import TensorBoard
from spatl_ray.progress import Progress
from spatl_ray.results.schema import TABLES

Row = Mapping[str, object]
LINES = Path(__file__).read_text(encoding="utf-8").splitlines()
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


RAISE = 1 + next(n for n, line in enumerate(LINES) if line == "        raise error")
"""The line of `raising` that raises."""


def test_the_name_is_public() -> None:
    assert spatl_ray.Callback is Callback


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("made", [Progress, TensorBoard, Named])
def test_callbacks_take_what_is_told(made: type[Callback], moment: str) -> None:
    """A method of another signature would fail, one of another name would never be called."""
    told = inspect.signature(getattr(Callback, moment))
    assert inspect.signature(getattr(made, moment)) == told
    assert {name for name in vars(made) if not name.startswith("_")} <= {*MOMENTS, "close"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_named_logger_is_told_everything_and_named_if_it_raises(moment: str) -> None:
    fault = OSError("the disk is full")
    logger = Named(raising(moment, fault), "mine:Logger")
    told: list[object] = [{} for _ in list(inspect.signature(getattr(logger, moment)).parameters)]
    names = rf"^results\.loggers 'mine:Logger' raised in {moment}, at .*{Path(__file__).name}:\d+: "
    with pytest.raises(PluginError, match=f"{names}OSError: the disk is full$") as caught:
        getattr(logger, moment)(*told)
    assert caught.value.__cause__ is fault


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
    with pytest.raises(LookupError, match="the disk of the logger is full") as caught:
        spatl_ray.run(
            small(tmp_path),
            callbacks=[raising(moment, LookupError("the disk of the logger is full")), notes],
        )
    assert notes.ends == ["failed"]
    (row,) = table(tmp_path, "runs").to_dict("records")
    (note,) = caught.value.__notes__
    assert note == f"callback '{__name__}:Raising' raised in {moment}, at {__file__}:{RAISE}"
    assert row["status"] == "failed"
    assert row["error"] == f"LookupError: the disk of the logger is full; {note}"
    assert len(list((tmp_path / "rounds").rglob("*.parquet"))) == rounds
    if rounds:
        assert table(tmp_path, "rounds")["round"].tolist() == [0]


@pytest.mark.parametrize("callback", [Notes, object(), None])
def test_what_is_no_callback_is_refused_before_work(tmp_path: Path, callback: Any) -> None:
    """Such as a class instead of its instance."""
    rule = r"^callbacks must be instances of spatl_ray\.Callback, got .*"
    with pytest.raises(ConfigError, match=rule + re.escape(repr(callback)[:8])):
        spatl_ray.run(small(tmp_path), callbacks=[callback])
    assert list(tmp_path.iterdir()) == []


def test_what_is_prepared_is_told_before_the_run(tmp_path: Path) -> None:
    steps: list[str] = []

    class Steps(Callback):
        def preparing(self, step: str) -> None:
            steps.append(step)

        def run_started(self, experiment: Experiment, run_id: str) -> None:
            steps.append("started")

    spatl_ray.run(small(tmp_path, rounds=1), callbacks=[Steps()])
    assert steps == ["loading data", "building the model", "started"]


def test_an_interrupt_from_within_ends_the_run_as_ctrl_c(tmp_path: Path) -> None:
    stop = raising("round_ended", KeyboardInterrupt())
    assert spatl_ray.run(small(tmp_path), callbacks=[stop]).status == "interrupted"
    assert table(tmp_path, "rounds")["round"].tolist() == [0]


class CtrlC(Callback):
    """Sends Ctrl-C at the end of the first round."""

    def round_ended(self, row: Row) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def listening() -> Iterator[None]:
    with stopping.listening():
        yield


@pytest.mark.usefixtures("listening")
def test_ctrl_c_ends_a_run_and_is_the_callers_again(tmp_path: Path) -> None:
    assert spatl_ray.run(small(tmp_path), callbacks=[CtrlC()]).status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(
    ("callbacks", "status", "rounds"), [([CtrlC()], "interrupted", 1), ([], "finished", 3)]
)
def test_ctrl_c_while_the_results_are_closed_is_raised_after_that(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    callbacks: list[Callback],
    status: str,
    rounds: int,
) -> None:
    notes = Notes()
    stopping.send_during(monkeypatch, "finish", signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        spatl_ray.run(small(tmp_path), callbacks=[*callbacks, notes])
    assert notes.ends == [status]
    assert table(tmp_path, "runs")["status"].tolist() == [status]
    assert table(tmp_path, "rounds")["round"].tolist() == list(range(rounds))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("listening")
def test_ctrl_c_in_one_goodbye_spares_the_others(tmp_path: Path) -> None:
    class Leaving(Notes):
        def run_ended(self, status: str) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            super().run_ended(status)

    callbacks = [Leaving(), Leaving()]
    with pytest.raises(KeyboardInterrupt):
        spatl_ray.run(small(tmp_path, rounds=1), callbacks=callbacks)
    assert [callback.ends for callback in callbacks] == [["finished"], ["finished"]]


@pytest.mark.usefixtures("listening")
def test_ctrl_c_while_a_run_is_written_down_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping.send_during(monkeypatch, "start", signal.SIGINT)
    assert spatl_ray.run(small(tmp_path)).status == "interrupted"
    assert table(tmp_path, "runs")["status"].tolist() == ["interrupted"]


@pytest.mark.usefixtures("listening")
def test_a_callers_handler_that_does_not_raise_hears_every_signal(tmp_path: Path) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    assert spatl_ray.run(small(tmp_path), callbacks=[CtrlC()]).status == "finished"
    assert heard == [signal.SIGINT] * 3


def test_a_run_in_another_thread_sets_no_handlers(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        assert pool.submit(spatl_ray.run, small(tmp_path, rounds=1)).result().status == "finished"


def test_what_is_no_experiment_is_refused_at_once() -> None:
    rule = r"experiment must be what load_experiment\(\.\.\.\) gives, got str 'demo'"
    with pytest.raises(ConfigError, match=rule):
        spatl_ray.run("demo")  # type: ignore[arg-type]
