"""A profiled run leaves a trace of every process, and the same numbers."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from small_runs import same_bits, saved, small

from spatl_ray import run
from spatl_ray.cli import main
from spatl_ray.config import Experiment
from spatl_ray.errors import ResultsError

pytestmark = pytest.mark.integration

Event = dict[str, Any]


def spans_of(experiment: Experiment) -> dict[str, list[Event]]:
    """The trace's spans by process."""
    path = Path(experiment.results.folder) / "profiles" / f"{experiment.run_id}.json"
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[names[event["pid"]]].append(event)
    return found


def inside(inner: Event, outer: Event) -> bool:
    tolerance = 1.0  # Of a microsecond: floating-point seconds since 1970 hold no more.
    ends = [event["ts"] + event["dur"] for event in (inner, outer)]
    return outer["ts"] - tolerance <= inner["ts"] and ends[0] <= ends[1] + tolerance


def test_the_trace_shows_what_each_process_did(tmp_path: Path) -> None:
    profiled = small(tmp_path, "spatl", engine={"backend": "serial", "profile": True})
    run(profiled)
    spans = spans_of(profiled)
    assert spans.keys() == {"driver", "serial", "aggregator"}
    driver = Counter(event["name"] for event in spans["driver"])
    assert driver["round 0"] == driver["round 2"] == 1
    assert driver["train and combine"] == driver["draw"] == 3
    clients = [event for event in spans["serial"] if event["name"].startswith("client ")]
    assert len(clients) == 3 * 6
    for name in ("read state", "train", "propose", "encode"):
        own = [event for event in spans["serial"] if event["name"] == name]
        assert len(own) == 18, name
        assert all(any(inside(event, client) for client in clients) for event in own), name
    assert Counter(event["name"] for event in spans["aggregator"])["combine"] == 3
    assert all(event["dur"] >= 0 <= event["ts"] for each in spans.values() for event in each)


def test_a_profile_changes_no_number(tmp_path: Path) -> None:
    engines = ({"backend": "serial"}, {"backend": "serial", "profile": True})
    plain, profiled = (
        small(tmp_path / str(i), "spatl", engine=engine) for i, engine in enumerate(engines)
    )
    assert plain.run_id == profiled.run_id
    run(plain)
    run(profiled)
    assert same_bits(saved(plain), saved(profiled))
    assert not (Path(plain.results.folder) / "profiles").exists()


def test_the_command_says_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = ["model=mlp", "rounds=1", "clients=3", "data.samples=100", "engine.backend=serial"]
    folder = f"results.folder={tmp_path}"
    assert main(["run", "demo", *fields, folder, "--profile"]) == 0
    (trace,) = (tmp_path / "profiles").glob("*.json")
    assert f"chrome://tracing: {trace}" in capsys.readouterr().out


def test_a_trace_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The results are closed by then, and stay."""
    (tmp_path / "profiles").touch()
    experiment = small(tmp_path, rounds=1, engine={"backend": "serial", "profile": True})
    with pytest.raises(ResultsError, match=r"^the profile .*\.json cannot be written: "):
        run(experiment)
    assert saved(experiment)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_every_actor_has_its_row(tmp_path: Path) -> None:
    experiment = small(tmp_path, "fedavg", engine={"workers": 2, "profile": True})
    run(experiment)
    spans = spans_of(experiment)
    assert set(spans) == {"driver", "client-actor-0", "client-actor-1", "aggregator"}
    trained = [event["name"] for name in spans for event in spans[name]].count("train")
    assert trained == 3 * 6
