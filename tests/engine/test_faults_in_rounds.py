"""Clients that send nonsense or break: the run goes on, says who and why, and nothing is spoilt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_rounds import committed
from small_runs import SIZE, ran, same_bits, saved, serial, small, table

from spatl_ray import run
from spatl_ray.config import Experiment
from spatl_ray.engine.backend import SerialBackend
from spatl_ray.errors import EngineError

pytestmark = pytest.mark.integration

WHY = {
    "nan": "delta holds NaN or infinite values",
    "inf": "delta holds NaN or infinite values",
    "huge": "delta reaches 1e+30, over 3.277e+04",
    "raise": "RuntimeError: the client broke",
}
RULES = ["mean", "median"]


def sabotaged(folder: Path, options: dict[str, Any], **fields: Any) -> Experiment:
    """FedAvg with saboteurs."""
    algorithm = {"name": "sketches:Saboteur", "options": options}
    return small(folder, algorithm, **fields)


def scaffold(folder: Path, options: dict[str, Any], **fields: Any) -> Experiment:
    """SCAFFOLD with saboteurs."""
    algorithm = {"name": "small_runs:SabotagedScaffold", "options": options}
    return small(folder, algorithm, **fields)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("what", WHY)
def test_the_run_goes_on_and_the_tables_say_who_and_why(
    tmp_path: Path, what: str, rule: str
) -> None:
    experiment = sabotaged(tmp_path, {"3": what, "5": what}, aggregation={"rule": rule})
    assert run(experiment).status == "finished"
    status = "failed" if what == "raise" else "rejected"
    rounds = table(tmp_path, "rounds")
    assert rounds[["participants", "accepted", "clipped"]].to_numpy().tolist() == [[6, 4, 0]] * 3
    assert (rounds[status] == 2).all()
    clients = table(tmp_path, "clients").set_index(["client", "round"])
    assert (clients.loc[[3, 5], "status"] == status).all()
    assert (clients.loc[[0, 1, 2, 4], "status"] == "accepted").all()
    events = table(tmp_path, "events")
    assert list(zip(events["round"], events["client"], strict=True)) == [
        (round_, client) for round_ in range(3) for client in (3, 5)
    ]
    kind = "client failed" if what == "raise" else "update rejected"
    assert set(events["kind"]) == {kind}
    assert set(events["message"]) == {WHY[what]}


@pytest.mark.parametrize("rule", RULES)
def test_whatever_is_wrong_the_model_is_that_of_the_others(tmp_path: Path, rule: str) -> None:
    """Four kinds of sabotage, one model to the bit; and it learns."""
    models = {}
    for what in WHY:
        experiment = scaffold(tmp_path, {"3": what}, aggregation={"rule": rule})
        run(experiment)
        models[what] = saved(experiment)
    assert all(same_bits(models["nan"], other) for other in models.values())
    honest = scaffold(tmp_path, {}, aggregation={"rule": rule})
    run(honest)
    assert not same_bits(models["nan"], saved(honest))
    rounds = table(tmp_path, "rounds").set_index("run_id").query("round == 2")
    accuracies = rounds["global_test_accuracy"]
    assert accuracies.to_numpy() == pytest.approx(accuracies[honest.run_id], abs=0.1)


def test_the_model_is_the_mean_of_those_who_count(tmp_path: Path) -> None:
    """`cohort` and `senders` agree when all send all: the weights of the rejected are left out."""
    algorithm = {"name": "sketches:Saboteur", "options": {"0": "nan", "1": "raise"}}
    one = small(tmp_path, algorithm, rounds=1, objective="uniform")
    _, backend = ran(one)
    start = serial(one)
    start.start()
    before = start.arrays()["model"].astype(np.float64)
    ends = []
    for client in (2, 3, 4, 5):
        alone = {str(c): "raise" for c in range(6) if c != client}
        options = {"name": "sketches:Saboteur", "options": alone}
        _, single = ran(small(tmp_path, options, rounds=1, objective="uniform"))
        ends.append(single.arrays()["model"].astype(np.float64) - before)
    moved = backend.arrays()["model"] - before
    assert moved == pytest.approx(np.mean(ends, axis=0), abs=1e-7)


def states(backend: SerialBackend, clients: int) -> list[np.ndarray]:
    """The clients' control variates as they are now."""
    store, last = backend.worker.store, committed(backend.worker.experiment)
    return [store.read(client, last[client])["control"] for client in range(clients)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("what", WHY)
def test_a_saboteurs_state_stays_and_the_variates_keep_their_mean(
    tmp_path: Path, what: str, rule: str
) -> None:
    experiment = scaffold(tmp_path, {"3": what}, aggregation={"rule": rule}, rounds=4)
    _, backend = ran(experiment)
    own = states(backend, 6)
    assert own[3].tobytes() == np.zeros(SIZE, dtype=np.float32).tobytes()
    assert all(variate.any() for client, variate in enumerate(own) if client != 3)
    c = backend.arrays()["control"]
    samples = backend.worker.population.data.sizes("train")
    mean = sum(n * v.astype(np.float64) for n, v in zip(samples, own, strict=True)) / samples.sum()
    assert np.abs(c).max() > 1e-2
    assert c == pytest.approx(mean, abs=1e-7)


def test_a_state_from_before_the_sabotage_stays(tmp_path: Path) -> None:
    """Client 3 is honest in round 0 only: its variate then is its variate at the end."""
    _, late = ran(scaffold(tmp_path, {"3": "nan", "from": 1}))
    _, first = ran(scaffold(tmp_path, {"3": "nan", "from": 1}, rounds=1))
    after, before = states(late, 6), states(first, 6)
    assert before[3].any()
    assert after[3].tobytes() == before[3].tobytes()
    assert after[2].tobytes() != before[2].tobytes()


def test_a_rejected_update_cost_its_bytes_and_a_failed_client_sent_none(tmp_path: Path) -> None:
    run(sabotaged(tmp_path, {"3": "nan", "4": "raise"}, rounds=1))
    clients = table(tmp_path, "clients").set_index("client")
    assert clients.loc[3, "bytes_up"] == clients.loc[0, "bytes_up"] > 4 * SIZE
    assert clients.loc[4, "bytes_up"] == 0
    assert np.isnan(clients.loc[4, "steps"])
    rounds = table(tmp_path, "rounds")
    assert rounds["bytes_up"].tolist() == [clients["bytes_up"].sum()]


def test_all_rejected_leaves_server_and_clients_untouched(tmp_path: Path) -> None:
    experiment = scaffold(tmp_path, {str(client): "nan" for client in range(6)})
    start = serial(experiment)
    start.start()
    summary, backend = ran(experiment)
    assert summary.status == "finished"
    assert same_bits(backend.arrays(), start.arrays())
    assert not any(variate.any() for variate in states(backend, 6))
    rounds = table(tmp_path, "rounds")
    assert (rounds["rejected"] == 6).all()
    assert rounds["global_test_accuracy"].nunique() == 1
    # Nobody's training counted, so all are still untrained.
    assert (rounds["untrained_clients"] == 6).all()


@pytest.mark.parametrize("first", [0, 2])
def test_all_failing_ends_the_run_with_readable_results(tmp_path: Path, first: int) -> None:
    options = {**{str(client): "raise" for client in range(6)}, "from": first}
    experiment = scaffold(tmp_path, options, rounds=6)
    lost = "3 rounds in a row" if first else "the first round"
    reason = f"every client of {lost} failed; client 0: RuntimeError: the client broke"
    with pytest.raises(EngineError, match=reason):
        run(experiment)
    (row,) = table(tmp_path, "runs").to_dict("records")
    assert (row["run_id"], row["status"]) == (experiment.run_id, "failed")
    assert row["error"] == f"EngineError: {reason}"
    assert row["end"] >= row["start"]
    # Also the lost rounds are there, with every client's reason.
    rounds = table(tmp_path, "rounds")
    assert rounds["failed"].tolist() == [0] * first + [6] * (3 if first else 1)
    events = table(tmp_path, "events")
    assert (events["kind"] == "client failed").sum() == rounds["failed"].sum()


def test_large_updates_are_clipped_and_marked(tmp_path: Path) -> None:
    bound = 0.05
    experiment = small(tmp_path, aggregation={"clip_norm": bound}, rounds=1)
    _, backend = ran(experiment)
    rounds, clients = table(tmp_path, "rounds"), table(tmp_path, "clients")
    assert rounds[["accepted", "clipped"]].to_numpy().tolist() == [[0, 6]]
    assert (clients["status"] == "clipped").all()
    events = table(tmp_path, "events")
    assert set(events["kind"]) == {"update clipped"}
    assert events["message"].str.fullmatch(r"L2 norm 0\.\d+ is over 0\.05").all()
    start = serial(experiment)
    start.start()
    moved = backend.arrays()["model"].astype(np.float64) - start.arrays()["model"]
    assert 0.5 * bound < np.linalg.norm(moved) <= bound * (1 + 1e-4)


def test_a_bound_that_nobody_reaches_changes_no_bit(tmp_path: Path) -> None:
    plain, bounded = small(tmp_path), small(tmp_path, aggregation={"clip_norm": 1e3})
    run(plain)
    run(bounded)
    assert same_bits(saved(plain), saved(bounded))


@pytest.mark.parametrize("rule", RULES)
def test_clipping_keeps_the_variates_mean(tmp_path: Path, rule: str) -> None:
    """Server and client both use the scaled update."""
    fields = {"aggregation": {"clip_norm": 0.05, "rule": rule}, "objective": "uniform"}
    _, backend = ran(scaffold(tmp_path, {}, **fields))
    assert (table(tmp_path, "clients")["status"] == "clipped").all()
    mean = np.mean(states(backend, 6), axis=0, dtype=np.float64)
    assert backend.arrays()["control"] == pytest.approx(mean, abs=1e-7)


def test_what_overflows_float16_is_rejected_and_counted(tmp_path: Path) -> None:
    """One step of lr 1e7 moves some parameter by more than 65,504, the largest float16 number."""
    fields: dict[str, Any] = {"wire": {"uplink": "float16"}, "training": {"steps": 1, "lr": 1e7}}
    experiment = small(tmp_path, **fields)
    start = serial(experiment)
    start.start()
    summary, backend = ran(experiment)
    assert summary.status == "finished"
    assert (table(tmp_path, "rounds")["rejected"] == 6).all()
    messages = table(tmp_path, "events").groupby("kind")["message"].unique()
    assert messages["update rejected"].tolist() == [WHY["inf"]]
    assert messages["idle round"].tolist() == [
        "no update of this round was accepted: the model stays as it was"
    ]
    assert same_bits(backend.arrays(), start.arrays())
