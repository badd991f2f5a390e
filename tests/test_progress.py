"""What a person sees of a run, with and without a terminal."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from spatl_ray.callbacks import Callback
from spatl_ray.config import Experiment
from spatl_ray.progress import Progress

EXPERIMENT = Experiment(rounds=2, clients=4)


def row(round_: int, **values: Any) -> dict[str, object]:
    cumulative = {"bytes_up_cumulative": 1_500_000, "bytes_down_cumulative": 3_000_000}
    accuracies = {"panel_local_test_accuracy_mean": 0.75, "global_test_accuracy": None}
    return {"round": round_, **accuracies, **cumulative, "seconds_total": 1.25, **values}


def watch(callback: Callback, experiment: Experiment = EXPERIMENT) -> None:
    """A run of two rounds with an event, seen to its end."""
    callback.preparing("loading data")
    callback.preparing("starting Ray")
    callback.run_started(experiment, "experiment-spatl-s0")
    for done in range(1, 5):
        callback.clients_done(0, done, 4)
    callback.round_ended(row(0))
    callback.event(
        {"kind": "rejected", "message": "not finite [red]\x1b[0m", "round": 1, "client": 3}
    )
    callback.round_ended(row(1, global_test_accuracy=0.5))
    callback.run_ended("finished")


def test_a_log_has_one_plain_line_a_round() -> None:
    text = io.StringIO()
    watch(Progress(Console(file=text, force_terminal=False, width=40)))
    assert text.getvalue().splitlines() == [
        "loading data ...",
        "starting Ray ...",
        "run experiment-spatl-s0",
        "round 0 (1 of 2)  own split 0.7500  global -  MB up 1.500  MB down 3.000  1.25 s",
        "round 1, client 3, rejected: not finite [red] [0m",
        "round 1 (2 of 2)  own split 0.7500  global 0.5000  MB up 1.500  MB down 3.000  1.25 s",
        "run finished",
    ]


def logged(experiment: Experiment, values: dict[str, object]) -> str:
    """The line of a round in a log."""
    text = io.StringIO()
    progress = Progress(Console(file=text, force_terminal=False, width=40))
    progress.run_started(experiment, "run")
    progress.round_ended(values)
    return text.getvalue().splitlines()[-1]


def test_a_run_that_goes_on_counts_from_its_beginning() -> None:
    experiment = Experiment.model_validate({"rounds": 400})
    assert "round 60 (61 of 400)" in logged(experiment, row(60))
    text = io.StringIO()
    progress = Progress(Console(file=text, force_terminal=True, width=100, height=40))
    progress.run_started(experiment, "run")
    progress.round_ended(row(60))
    progress.close()
    assert "61 of 400 rounds" in text.getvalue()


def test_late_clients_and_simulated_seconds_are_shown_with_devices() -> None:
    values = row(0, late=2, simulated_seconds_cumulative=61.25)
    with_devices = Experiment.model_validate({"rounds": 2, "clients": 4, "devices": {}})
    assert "MB down 3.000  late 2  simulated s 61.2  1.25 s" in logged(with_devices, values)
    assert "late" not in logged(EXPERIMENT, values)
    text = io.StringIO()
    watch(Progress(Console(file=text, force_terminal=True, width=100, height=40)), with_devices)
    assert "late" in text.getvalue()
    assert "simulated s" in text.getvalue()


def test_the_own_split_is_that_of_the_whole_panel_unless_clients_are_skipped() -> None:
    values = row(0, local_test_accuracy_mean=0.25)
    assert "own split 0.7500" in logged(EXPERIMENT, values)
    skipping = Experiment.model_validate({"rounds": 2, "evaluation": {"untrained": "skip"}})
    assert "own split 0.2500" in logged(skipping, values)


def test_a_terminal_says_what_is_being_prepared_and_clears_it() -> None:
    text = io.StringIO()
    progress = Progress(Console(file=text, force_terminal=True))
    progress.preparing("loading data")
    progress.preparing("starting Ray")
    assert "loading data ..." in text.getvalue()
    progress.close()
    assert text.getvalue().count("\x1b[?25l") == text.getvalue().count("\x1b[?25h") == 1


def test_a_terminal_has_a_live_table_and_a_bar() -> None:
    text = io.StringIO()
    watch(Progress(Console(file=text, force_terminal=True, width=100, height=40)))
    out = text.getvalue()
    assert all(heading in out for heading in ("own split", "MB up", "MB down", "ETA"))
    assert "2 of 2 rounds" in out
    assert "4 of 4 clients" in out
    assert "rejected: not finite" in out
    assert out.rstrip().endswith("run finished")


def test_the_terminal_is_given_back_after_an_error() -> None:
    text = io.StringIO()
    progress = Progress(Console(file=text, force_terminal=True))
    progress.run_started(EXPERIMENT, "run")
    progress.close()
    progress.close()
    assert text.getvalue().count("\x1b[?25l") == text.getvalue().count("\x1b[?25h") == 1
