"""Devices, deadlines, over-sampling and availability in whole runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_runs import ran, same_bits, saved, serial, small, table

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.engine.clock import round_seconds, surplus
from spatl_ray.engine.messages import ClientReport
from spatl_ray.engine.prepare import prepare
from spatl_ray.errors import ConfigError
from spatl_ray.federation.devices import Times

pytestmark = pytest.mark.integration

DEVICES = {"compute": 1e8, "uplink": 1e5, "downlink": 5e5, "latency": 0.25}


def traced(folder: Path, speeds: list[float]) -> dict[str, Any]:
    """Devices that differ in their compute only, one a client."""
    rows = [f"{client},{speed},1e5,1e5" for client, speed in enumerate(speeds)]
    head = "client,flops_per_second,uplink_bytes_per_second,downlink_bytes_per_second"
    path = folder / "devices.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return {"trace": str(path)}


def finished(experiment: Experiment) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rounds and clients of a run."""
    run(experiment)
    folder = Path(experiment.results.folder)
    return table(folder, "rounds"), table(folder, "clients")


def assert_close(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> None:
    """Equal up to rounding: (w v) / w is v, or its neighbour."""
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-6, atol=1e-7)


def test_seconds_follow_flops_and_bytes(tmp_path: Path) -> None:
    rounds, clients = finished(small(tmp_path, "spatl", devices=DEVICES))
    np.testing.assert_allclose(clients["simulated_seconds_train"], clients["flops"] / 1e8)
    np.testing.assert_allclose(
        clients["simulated_seconds_uplink"], 0.25 + clients["bytes_up"] / 1e5
    )
    np.testing.assert_allclose(
        clients["simulated_seconds_downlink"], 0.25 + clients["bytes_down"] / 5e5
    )
    parts = ["simulated_seconds_train", "simulated_seconds_uplink", "simulated_seconds_downlink"]
    np.testing.assert_allclose(clients["simulated_seconds"], clients[parts].sum(axis=1))
    slowest = clients.groupby("round")["simulated_seconds"].max()
    np.testing.assert_array_equal(rounds["simulated_seconds"], slowest)
    np.testing.assert_allclose(rounds["simulated_seconds_cumulative"], slowest.cumsum())


def test_without_devices_no_time_is_simulated(tmp_path: Path) -> None:
    rounds, clients = finished(small(tmp_path))
    assert rounds["simulated_seconds"].isna().all()
    assert clients["simulated_seconds"].isna().all()


def test_who_is_late_does_not_count(tmp_path: Path) -> None:
    """With five slow clients the model is the fast one's own; the others' states stay as they were."""
    devices = traced(tmp_path, [1e3] * 5 + [1e9])
    experiment = small(
        tmp_path, "scaffold", rounds=1, devices=devices, stragglers={"deadline": 5.0}
    )
    _, backend = ran(experiment)
    clients = table(tmp_path, "clients").set_index("client")
    assert list(clients["status"]) == ["late"] * 5 + ["accepted"]
    assert (clients["bytes_up"] > 0).all()
    rounds = table(tmp_path, "rounds")
    assert rounds["late"].tolist() == [5]
    assert rounds["simulated_seconds"].tolist() == [5.0]
    # c = sum p_i c_i, and c_i = 0 for all but the fast client.
    control = backend.arrays()["control"]
    state = backend.worker.store.read(5, 0)
    assert np.any(control)
    share = len(backend.worker.population.samples(5, "train")[1]) / sum(
        len(backend.worker.population.samples(i, "train")[1]) for i in range(6)
    )
    np.testing.assert_allclose(control, share * state["control"], rtol=1e-5, atol=1e-9)


def test_a_late_update_costs_but_changes_nothing(tmp_path: Path) -> None:
    """The model of a round in which only client 5 is in time is the one of a cohort of client 5."""
    devices = traced(tmp_path, [1e3] * 5 + [1e9])
    late = small(tmp_path / "a", rounds=1, devices=devices, stragglers={"deadline": 5.0})
    trace = tmp_path / "there.csv"
    trace.write_text("client,first_round,last_round\n5,0,0\n")
    alone = small(tmp_path / "b", rounds=1, availability={"name": "trace", "file": str(trace)})
    run(late)
    run(alone)
    assert_close(saved(late), saved(alone))


def test_over_sampling_takes_the_first(tmp_path: Path) -> None:
    devices = traced(tmp_path, [3e6, 1e6, 2e6, 6e6, 5e6, 4e6])
    experiment = small(
        tmp_path, sample_ratio=0.5, devices=devices, stragglers={"oversample": 5 / 3}
    )
    rounds, clients = finished(experiment)
    assert (rounds["participants"] == 5).all()
    assert (rounds["accepted"] == 3).all()
    assert (rounds["late"] == 2).all()
    for (_, rows), waited in zip(
        clients[clients["participated"]].groupby("round"),
        rounds["simulated_seconds"],
        strict=True,
    ):
        accepted = rows[rows["status"] == "accepted"]["simulated_seconds"]
        assert accepted.max() <= rows[rows["status"] == "late"]["simulated_seconds"].min()
        assert waited == accepted.max()


def test_over_sampling_without_surplus_is_plain_sampling(tmp_path: Path) -> None:
    """The cohort of an over-sampled round, drawn plainly, gives the same bits."""
    devices = traced(tmp_path, [1e6] * 3 + [1e8] * 3)
    over = small(
        tmp_path / "a", rounds=1, sample_ratio=0.5, devices=devices, stragglers={"oversample": 2}
    )
    trace = tmp_path / "there.csv"
    trace.write_text("client,first_round,last_round\n3,0,0\n4,0,0\n5,0,0\n")
    plain = small(
        tmp_path / "b",
        rounds=1,
        sample_ratio=0.5,
        availability={"name": "trace", "file": str(trace)},
    )
    run(over)
    run(plain)
    assert_close(saved(over), saved(plain))


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold", "spatl"])
def test_groups_do_not_decide_who_is_first(tmp_path: Path, algorithm: str) -> None:
    devices = traced(tmp_path, [3e6, 1e6, 2e6, 6e6, 5e6, 4e6])
    fields = {"sample_ratio": 0.5, "devices": devices, "stragglers": {"oversample": 2.0}}
    one = small(tmp_path / "a", algorithm, **fields)
    many = small(tmp_path / "b", algorithm, **fields)
    run(one)
    backend = serial(many)
    backend._groups = 4
    run(many, backend=backend)
    assert same_bits(saved(one), saved(many))


def test_a_deadline_that_nobody_meets_is_refused_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    experiment = small(folder, devices=DEVICES, stragglers={"deadline": 0.25})
    with pytest.raises(
        ConfigError, match=r"stragglers\.deadline must be at least 0\.\d+ s.* got 0\.25"
    ):
        run(experiment)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold", "spatl", "fedper", "local_only"])
def test_a_deadline_before_the_end_of_the_upload_is_refused(tmp_path: Path, algorithm: str) -> None:
    """Just below the fastest client's round, every client would be late in every round."""
    devices = {**DEVICES, "uplink": 2e3}
    _, clients = finished(small(tmp_path / "a", algorithm, devices=devices, rounds=1))
    fastest = float(clients["simulated_seconds"].min())
    prepare(small(tmp_path, algorithm, devices=devices, stragglers={"deadline": fastest * 1.01}))
    with pytest.raises(
        ConfigError, match=r"fastest client \(\d\) needs for download, training and"
    ):
        prepare(
            small(tmp_path, algorithm, devices=devices, stragglers={"deadline": fastest * 0.98})
        )


def test_a_smaller_update_within_a_budget_is_the_least(tmp_path: Path) -> None:
    devices = {
        **DEVICES,
        "uplink": 500,
        "budget_bytes_up": {"name": "between", "low": 1e3, "high": 4e3},
    }
    fields = {"devices": devices, "rounds": 1}
    _, clients = finished(small(tmp_path / "a", "spatl", **fields))
    deadline = {"deadline": float(clients["simulated_seconds"].min()) * 1.001}
    rounds, _ = finished(small(tmp_path / "b", "spatl", **fields, stragglers=deadline))
    assert rounds["late"].tolist() == [5]


def test_an_own_criterion_is_not_asked_about_a_model_that_did_not_move(tmp_path: Path) -> None:
    algorithm = {"name": "spatl", "criterion": "small_runs:relative"}
    devices = {**DEVICES, "uplink": 2e3}
    prepare(small(tmp_path, algorithm, devices=devices, stragglers={"deadline": 2.0}))


def test_a_deadline_of_an_own_algorithm_is_tried(tmp_path: Path) -> None:
    """It is not judged: nobody may be in time, and the run still ends."""
    own = {"name": "small_runs:SabotagedScaffold", "options": {}}
    devices = {**DEVICES, "uplink": 10.0}
    rounds, _ = finished(small(tmp_path, own, devices=devices, stragglers={"deadline": 50.0}))
    assert (rounds["late"] == 6).all()
    assert (rounds["simulated_seconds"] == 50.0).all()
    events = table(tmp_path, "events")
    assert set(events["kind"]) == {"idle round"}


def test_a_round_without_clients_passes(tmp_path: Path) -> None:
    trace = tmp_path / "there.csv"
    trace.write_text("client,first_round,last_round\n" + "".join(f"{i},1,1\n" for i in range(3)))
    availability = {"name": "trace", "file": str(trace)}
    rounds, clients = finished(small(tmp_path, "spatl", availability=availability, devices=DEVICES))
    assert rounds["participants"].tolist() == [0, 3, 0]
    assert rounds["simulated_seconds"].tolist()[::2] == [0.0, 0.0]
    assert set(clients[clients["participated"]]["client"]) == {0, 1, 2}
    events = table(tmp_path, "events")
    few, idle = "few clients", "idle round"
    assert events["kind"].tolist() == [few, idle, few, few, idle]
    assert events["message"].str.startswith("3 of 6 wanted clients were drawn").any()


def report(client: int, seconds: float | None, status: str = "pending") -> ClientReport:
    times = None if seconds is None else Times(seconds, 0.0, 0.0)
    return ClientReport(client, status, times=times)


def test_surplus_is_what_comes_after_a_cohort() -> None:
    reports = [report(4, 1.0), report(2, 3.0), report(1, 1.0), report(0, None, "failed")]
    assert surplus(reports, 3) == frozenset()
    assert surplus(reports, 2) == {2}
    assert surplus(reports, 1) == {2, 4}  # Ties go to the lower client.


def test_the_server_waits_for_what_it_takes(tmp_path: Path) -> None:
    experiment = small(tmp_path, devices=DEVICES)
    reports = [report(0, 2.0, "accepted"), report(1, 9.0, "late"), report(2, None, "failed")]
    assert round_seconds(experiment, reports) == 2.0
    with_deadline = small(tmp_path, devices=DEVICES, stragglers={"deadline": 7.0})
    assert round_seconds(with_deadline, reports) == 7.0
    assert round_seconds(with_deadline, [report(i, 3.0, "accepted") for i in range(6)]) == 3.0


def test_the_server_waits_for_nobody_who_has_nothing_to_send(tmp_path: Path) -> None:
    """A client whose training diverged answers without an update."""
    diverged = replace(report(3, 90.0, "rejected"), has_update=False)
    good = [report(i, 1.0 + i, "accepted") for i in range(3)]
    plain = small(tmp_path, devices=DEVICES)
    assert round_seconds(plain, [*good, diverged]) == 90.0
    over = small(tmp_path, sample_ratio=0.5, devices=DEVICES, stragglers={"oversample": 2})
    assert round_seconds(over, [*good, diverged]) == 3.0
    timed = small(tmp_path, devices=DEVICES, stragglers={"deadline": 7.0})
    assert round_seconds(timed, [*good, diverged]) == 7.0
    assert round_seconds(timed, [*good, diverged], elapsed=8.0) == 8.0
    soon = replace(report(3, 4.0, "rejected"), has_update=False)
    assert round_seconds(timed, [*good, soon]) == 4.0
    assert round_seconds(timed, [*good, soon, report(4, None, "failed")]) == 7.0


def test_a_diverged_client_does_not_hold_up_a_deadline(tmp_path: Path) -> None:
    devices = traced(tmp_path, [1e3] * 5 + [1e9])
    fields = {"devices": devices, "stragglers": {"deadline": 5.0}, "training": {"lr": 1e18}}
    rounds, clients = finished(small(tmp_path, rounds=1, **fields))
    assert (clients["status"] == "rejected").any()
    assert rounds["simulated_seconds"].tolist() == [5.0]


def test_a_deadline_below_the_time_of_asking_for_losses_is_refused(tmp_path: Path) -> None:
    """Candidates are all clients, of whom one has a slow download."""
    path = tmp_path / "slow.csv"
    head = "client,flops_per_second,uplink_bytes_per_second,downlink_bytes_per_second"
    rows = [f"{client},1e9,1e6,{1e2 if client == 0 else 1e6}" for client in range(6)]
    path.write_text("\n".join([head, *rows]) + "\n")
    sampler = {"name": "power_of_choice", "candidates": 6, "loss": "current"}
    fields = {"sample_ratio": 0.5, "rounds": 1, "devices": {"trace": str(path)}, "sampler": sampler}
    with pytest.raises(
        ConfigError, match=r"stragglers\.deadline must be at least .* s in which losses"
    ):
        run(small(tmp_path / "a", **fields, stragglers={"deadline": 5.0}))
    some = {**sampler, "candidates": 5}
    rounds, _ = finished(
        small(tmp_path / "b", **{**fields, "sampler": some}, stragglers={"deadline": 5.0})
    )
    assert rounds["participants"].tolist() == [3]


@pytest.mark.parametrize("period", [None, 200])
def test_a_trace_in_which_nobody_is_ever_there_is_refused(
    tmp_path: Path, period: int | None
) -> None:
    trace = tmp_path / "there.csv"
    trace.write_text("client,first_round,last_round\n0,3,199\n")
    there = {"name": "trace", "file": str(trace), "period": period}
    rule = r"availability\.file must have some client in one of the rounds 0 to 2, got none"
    with pytest.raises(ConfigError, match=rule):
        run(small(tmp_path / "a", availability=there))
    rounds, _ = finished(small(tmp_path / "a", availability=there, rounds=4))
    assert rounds["participants"].tolist() == [0, 0, 0, 1]


def test_a_deadline_is_for_those_who_are_ever_there(tmp_path: Path) -> None:
    trace = tmp_path / "there.csv"
    trace.write_text("client,first_round,last_round\n0,0,2\n5,9,9\n")
    fields = {
        "availability": {"name": "trace", "file": str(trace)},
        "devices": traced(tmp_path, [1e3] * 5 + [1e9]),
        "stragglers": {"deadline": 5.0},
    }
    with pytest.raises(ConfigError, match=r"stragglers\.deadline .* the fastest client \(0\)"):
        run(small(tmp_path / "a", **fields))


def test_asking_for_losses_counts_towards_the_deadline(tmp_path: Path) -> None:
    """Nobody is late in a round without a deadline; just below its length, the slowest is."""
    fields = {
        "sample_ratio": 0.5,
        "rounds": 1,
        "devices": traced(tmp_path, [1e7, 2e7, 3e7, 4e7, 5e7, 6e7]),
        "sampler": {"name": "power_of_choice", "candidates": 4, "loss": "current"},
    }
    whole, _ = finished(small(tmp_path / "a", **fields))
    seconds = float(whole["simulated_seconds"].iloc[0])
    deadline = {"deadline": seconds * 0.999}
    rounds, clients = finished(small(tmp_path / "b", **fields, stragglers=deadline))
    assert rounds["late"].tolist() == [1]
    assert rounds["simulated_seconds"].tolist() == [deadline["deadline"]]
    late = clients[clients["status"] == "late"]["simulated_seconds"].iloc[0]
    assert late < deadline["deadline"] < seconds


@pytest.mark.parametrize(
    "training", [{"drop_last": True, "batch_size": 64}, {"steps": 2, "batch_size": 150}]
)
def test_a_deadline_that_is_met_is_not_refused(tmp_path: Path, training: dict[str, Any]) -> None:
    """What is processed is counted as it will be: without what is left out, with smaller batches."""
    fields = {"devices": DEVICES, "training": {"lr": 0.05, **training}, "rounds": 1}
    _, clients = finished(small(tmp_path / "a", **fields))
    deadline = {"deadline": float(clients["simulated_seconds"].max()) * 1.001}
    rounds, _ = finished(small(tmp_path / "b", **fields, stragglers=deadline))
    assert rounds["late"].tolist() == [0]


def test_the_server_does_not_wait_for_clients_that_it_never_asked(tmp_path: Path) -> None:
    trace = tmp_path / "there.csv"
    trace.write_text("client,first_round,last_round\n0,0,0\n1,0,0\n")
    availability = {"name": "trace", "file": str(trace)}
    rounds, clients = finished(
        small(tmp_path, availability=availability, devices=DEVICES, stragglers={"deadline": 30.0})
    )
    asked = clients[clients["participated"]]["simulated_seconds"]
    assert rounds["simulated_seconds"].tolist() == [asked.max(), 0.0, 0.0]


def test_a_budget_that_a_client_can_never_meet_is_refused(tmp_path: Path) -> None:
    budget = {"name": "choice", "values": [100.0, 1e6]}
    for algorithm in ("fedavg", "spatl"):
        folder = tmp_path / algorithm
        with pytest.raises(
            ConfigError, match=r"devices\.budget_bytes_up must be at least \d+.* got 100 for client"
        ):
            run(small(folder, algorithm, devices={"budget_bytes_up": budget}))
        assert not folder.exists()


def test_a_diverged_client_has_taken_its_time(tmp_path: Path) -> None:
    training = {"lr": 1e18, "steps": 3}
    rounds, clients = finished(small(tmp_path, devices=DEVICES, training=training, rounds=1))
    assert (clients["status"] == "rejected").all()
    assert (clients["simulated_seconds_train"] == clients["flops"] / 1e8).all()
    assert rounds["simulated_seconds"].iloc[0] == clients["simulated_seconds"].max() > 0
