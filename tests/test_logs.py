"""Messages say which run, round and client they are about."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import small

from spatl_ray import run
from spatl_ray.logs import LEVEL, about, logger


@pytest.fixture(autouse=True)
def _not_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """By import-linter, which sets up logging for its own and turns off what is there."""
    for name, found in logging.root.manager.loggerDict.items():
        if name.startswith("spatl_ray") and isinstance(found, logging.Logger):
            monkeypatch.setattr(found, "disabled", False)


def test_a_message_has_its_place(caplog: pytest.LogCaptureFixture) -> None:
    log = logger("spatl_ray.here")
    with about(run_id="3f2a"):
        with about(round=3, client=7):
            log.warning("failed: %s %d%%", "why", 5)
        log.warning("on")
    log.warning("nowhere")
    assert caplog.messages == [
        "run 3f2a, round 3, client 7: failed: why 5%",
        "run 3f2a: on",
        "nowhere",
    ]
    places = [(r.run_id, r.round, r.client) for r in caplog.records]  # type: ignore[attr-defined]
    assert places == [("3f2a", 3, 7), ("3f2a", None, None), (None, None, None)]


def test_a_run_logs_its_rounds_events_and_failed_clients(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "spatl_ray")
    own = {"name": "small_runs:SabotagedScaffold", "options": {"2": "raise", "from": 1}}
    run_id = run(small(tmp_path, own, rounds=2)).run_id
    assert caplog.messages[0] == f"run {run_id}: begins or goes on: experiment, 2 rounds"
    assert caplog.messages[1].startswith(f"run {run_id}, round 0: ended with 6 clients, ")
    place = f"run {run_id}, round 1, client 2: "
    assert caplog.messages[2:4] == [
        f"{place}did not train to its end",
        f"{place}client failed: RuntimeError: the client broke",
    ]
    assert caplog.records[2].exc_text is not None
    assert "in propose" in caplog.records[2].exc_text
    assert caplog.messages[-1] == f"run {run_id}: finished"


@pytest.mark.parametrize(
    ("setting", "shown"),
    [({}, "no"), ({LEVEL: "error"}, ""), ({LEVEL: "debug"}, "no yes"), ({LEVEL: "odd"}, "no")],
)
def test_a_worker_writes_from_a_level_on_and_others_are_silent(
    setting: dict[str, str], shown: str
) -> None:
    code = """
import sys
from spatl_ray.logs import logger, write_to_stderr
logger("spatl_ray.before").error("unseen")
write_to_stderr()
write_to_stderr()
logger("spatl_ray.here").warning("no")
logger("spatl_ray.here").debug("yes")
"""
    kept = {name: value for name, value in os.environ.items() if name != LEVEL}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **setting}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert " ".join(line.split()[-1] for line in done.stderr.splitlines()) == shown
