"""A client that raises, hangs or takes its process along fails alone, by the rule that is declared."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from identity import assert_identical, everything, small
from troubled_runs import ON_RAY, SERIAL, statuses, told, tried, troubled

from spatl_ray import run
from spatl_ray.engine.attempts import Attempts, ClientTimeoutError, limited
from spatl_ray.errors import ConfigError, EngineError

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("rule", "times"), [("skip", 1), ("retry", 2)])
def test_a_client_that_raises(tmp_path: Path, rule: str, times: int) -> None:
    engine = {**SERIAL, "on_client_failure": rule}
    run(troubled(tmp_path, {"2": "fail"}, engine))
    assert told(tmp_path).to_numpy().tolist() == [
        [1, 2, "client failed", "RuntimeError: the client broke"]
    ]
    assert tried(tmp_path, 2) == times
    assert [c for c, status in statuses(tmp_path).items() if status == "failed"] == [2]


def test_a_second_attempt_that_succeeds_leaves_no_trace(tmp_path: Path) -> None:
    engine = {**SERIAL, "on_client_failure": "retry"}
    found = []
    for name, times in (("broken", 1), ("sound", 0)):
        experiment = troubled(tmp_path / name, {"2": "fail"}, engine, times=times)
        run(experiment)
        found.append(everything(experiment))
    assert_identical(*found)


@pytest.mark.parametrize("what", ["fail", "sleep"])
def test_the_run_may_be_aborted(tmp_path: Path, what: str) -> None:
    engine = {**SERIAL, "on_client_failure": "abort", "client_timeout": 1.0}
    with pytest.raises(
        EngineError, match=r"client 2 failed in round 1, .*on_client_failure is abort"
    ):
        run(troubled(tmp_path, {"2": what}, engine))
    assert tried(tmp_path, 2) == 1
    assert pd.read_parquet(tmp_path / "results" / "rounds")["round"].tolist() == [0]


def test_a_client_that_takes_too_long(tmp_path: Path) -> None:
    run(troubled(tmp_path, {"2": "sleep"}, {**SERIAL, "client_timeout": 1.0}))
    ((_, client, kind, message),) = told(tmp_path).to_numpy().tolist()
    assert (client, kind) == (2, "client failed")
    assert message == "ClientTimeoutError: not done after 1 s (engine.client_timeout)"


def test_a_limit_is_lifted_after_its_block() -> None:
    import signal

    before = signal.getsignal(signal.SIGALRM)
    with limited(5.0, kill=False):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == before
    before_it = time.monotonic()
    with (
        pytest.raises(ClientTimeoutError, match=r"not done after 0.05 s"),
        limited(0.05, kill=False),
    ):
        time.sleep(60)
    assert time.monotonic() - before_it < 30
    with limited(None, kill=True):
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def dies_at(file: Path, round_: int, client: int) -> None:
    """A process of a worker that ends while it trains a client."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    with Attempts(file, follows=True).noted(round_, client):
        os._exit(1)


def test_deaths_are_counted_from_what_was_noted(tmp_path: Path) -> None:
    file = tmp_path / "worker.json"
    assert not Attempts(file).careful
    first = Attempts(file, follows=True)
    dies_at(file, 3, 7)
    dies_at(file, 3, 7)
    after = Attempts(file)
    assert after.careful
    assert [after.deaths(3, 7), after.deaths(3, 8), after.deaths(4, 7)] == [2, 0, 0]
    with after.noted(3, 8):
        pass
    assert Attempts(file).deaths(3, 8) == 0
    assert first.deaths(3, 7) == 0
    with Attempts().noted(1, 1):
        pass


@pytest.mark.parametrize(("field", "value"), [("client_timeout", 0), ("on_client_failure", "hope")])
def test_what_is_no_rule_is_refused(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"engine.{field}"):
        small(tmp_path, {"name": "fedavg"}, engine={field: value})


@pytest.mark.ray
def test_clients_that_take_their_process_along_fail_alone(tmp_path: Path, ray_cluster: Any) -> None:
    """One dies, one hangs where no exception gets in; all others' numbers are those of a run without."""
    engine = {**ON_RAY, "client_timeout": 3.0}
    summary = run(troubled(tmp_path / "ray", {"2": "die", "3": "hang"}, engine))
    logs = Path(ray_cluster.head_node.get_logs_dir_path())
    logged = "".join(file.read_text() for file in logs.glob("worker-*.err"))
    for client in (2, 3):
        assert f": run {summary.run_id}, round 1, client {client}: its 2 processes died" in logged
    failed = {c: s for c, s in statuses(tmp_path / "ray").items() if s == "failed"}
    assert failed == {2: "failed", 3: "failed"}
    messages = told(tmp_path / "ray").set_index("client")["message"]
    assert messages[2] == "ClientDiedError: its 2 processes died"
    assert messages[3] == "ClientDiedError: its 2 processes died"
    run(troubled(tmp_path / "serial", {"2": "fail", "3": "fail"}, SERIAL))
    columns = ["global_test_accuracy", "train_loss", "accepted"]
    rounds = [
        pd.read_parquet(tmp_path / n / "results" / "rounds")[columns] for n in ("ray", "serial")
    ]
    pd.testing.assert_frame_equal(*rounds, check_exact=True)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
@pytest.mark.parametrize(("rule", "deaths"), [("skip", 2), ("retry", 3)])
def test_two_that_die_in_one_worker_fail_alone(tmp_path: Path, rule: str, deaths: int) -> None:
    """Each takes all its tries, and the first death is nobody's: the actor is started again for all."""
    engine = {"workers": 1, "on_client_failure": rule}
    run(troubled(tmp_path, {"2": "die", "3": "die"}, engine))
    assert told(tmp_path).to_numpy().tolist() == [
        [1, client, "client failed", f"ClientDiedError: its {deaths} processes died"]
        for client in (2, 3)
    ]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_a_death_may_abort_the_run(tmp_path: Path) -> None:
    engine = {**ON_RAY, "on_client_failure": "abort"}
    with pytest.raises(EngineError, match=r"client 2 failed in round 1, .*its 2 processes died"):
        run(troubled(tmp_path, {"2": "die"}, engine))
