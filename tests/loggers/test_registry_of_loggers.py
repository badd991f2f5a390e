"""Names in results.loggers: what they make, and what is refused before any work starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError, PluginError
from spatl_ray.loggers.named import Named
from spatl_ray.loggers.registry import make_loggers
from spatl_ray.loggers.tensorboard import TensorBoard

OWN = '''
from spatl_ray import Callback


class Own(Callback):
    def __init__(self, experiment):
        self.rounds = experiment.rounds


def own(experiment):
    return Own(experiment)


def nothing(experiment):
    return None


class Reporter:
    """Has all methods, but is no Callback."""

    def __init__(self, experiment): ...


class Forgetful(Callback):
    """Takes no experiment."""


class Clearing(Callback):
    """Takes what it needs out of its rows."""

    def __init__(self, experiment):
        self.seen = []

    def event(self, row):
        self.seen.append(dict(row))
        row.clear()

    round_ended = event

    def clients_ended(self, round_, rows):
        self.event(rows[0])


def broken(experiment):
    raise OSError("no route to host")
'''


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_loggers.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


def named(*names: str) -> Experiment:
    return Experiment.model_validate({"rounds": 7, "results": {"loggers": list(names)}})


def test_loggers_come_in_the_order_of_the_config() -> None:
    loggers = make_loggers(named("own_loggers:Own", "tensorboard", "own_loggers:own"))
    assert all(isinstance(each, Named) for each in loggers)
    first, second, third = (each.inner for each in loggers if isinstance(each, Named))
    assert type(first).__name__ == type(third).__name__ == "Own"
    assert (first.rounds, third.rounds) == (7, 7)  # type: ignore[attr-defined]
    assert isinstance(second, TensorBoard)
    assert make_loggers(named()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "own_loggers:nothing",
            r"gives a spatl_ray\.Callback, got 'own_loggers:nothing': a NoneTy",
        ),
        ("own_loggers:Reporter", r"spatl_ray\.Callback, got 'own_loggers:Reporter': a Reporter"),
        (
            "own_loggers:Forgetful",
            r"with the experiment alone, got 'own_loggers:Forgetful' \(too many",
        ),
        ("own_loggers:Missing", r"imported as package\.module:Name, got 'own_loggers:Missing'"),
        ("no_such_package:Own", r"imported as package\.module:Name, got 'no_such_package:Own'"),
    ],
)
def test_what_is_no_logger_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^results\.loggers must .*{message}"):
        make_loggers(named(name))


def test_one_that_raises_when_it_is_made_is_blamed() -> None:
    where = r"own_loggers\.py:\d+: OSError: no route to host"
    with pytest.raises(
        PluginError, match=rf"'own_loggers:broken' raised when it was made, .*{where}"
    ):
        make_loggers(named("own_loggers:broken"))


def test_a_logger_that_changes_its_row_changes_no_other() -> None:
    first, second = make_loggers(named("own_loggers:Clearing", "own_loggers:Clearing"))
    row = {"round": 3}
    for logger in (first, second):
        logger.round_ended(row)
        logger.event(row)
        logger.clients_ended(3, [row])
    for logger in (first, second):
        assert isinstance(logger, Named)
        assert logger.inner.seen == [{"round": 3}] * 3  # type: ignore[attr-defined]
    assert row == {"round": 3}


def test_every_fault_is_shown_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_loggers(named("own_loggers:Missing", "own_loggers:Own", "own_loggers:nothing"))
    assert [fault.partition(",")[2].split("'")[1] for fault in caught.value.faults] == [
        "own_loggers:Missing",
        "own_loggers:nothing",
    ]
