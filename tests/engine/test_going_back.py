"""A run that loses something goes back, and on to the same bits, or says why it cannot: in one process."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken_off import Watch, broken_off, without_history
from identity import assert_identical, everything, state_stores
from small_runs import small

from spatl_ray import resume, run
from spatl_ray.aggregation.verdict import Verdict
from spatl_ray.config import Experiment
from spatl_ray.data.datasets import load_dataset
from spatl_ray.data.federated import federate
from spatl_ray.engine.backend import Done, Following, RoundPlan, SerialBackend, nothing_follows
from spatl_ray.engine.checkpoint import Checkpoints
from spatl_ray.engine.folders import checkpoint_folder, state_folder
from spatl_ray.engine.messages import BroadcastBytes, Facts, GroupTask, RoundOutcome
from spatl_ray.engine.worker import Worker
from spatl_ray.errors import EngineError, LostError, StateError
from spatl_ray.state.store import undo_folder

pytestmark = pytest.mark.integration

OTHER = "another kind of machine"


def scaffold(folder: Path, **fields: Any) -> Experiment:
    """Six rounds with a checkpoint after each of them."""
    checkpoints = {"seconds": 0.0, **fields.pop("checkpoints", {})}
    return small(folder, "scaffold", rounds=6, checkpoints=checkpoints, **fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run that was never disturbed."""
    experiment = scaffold(tmp_path_factory.mktemp("whole"))
    run(experiment)
    return without_history(everything(experiment))


class Losing(SerialBackend):
    """Loses its processes once, at round 4, and is at nothing until it is started again."""

    def __init__(self, experiment: Experiment, meanwhile: Callable[[], object]) -> None:
        data = federate(load_dataset(experiment.data, experiment.seed), experiment)
        super().__init__(experiment, data, state_folder(experiment))
        self._meanwhile, self._is_due = meanwhile, True

    def train(
        self, plan: RoundPlan, done: Done, following: Following = nothing_follows
    ) -> RoundOutcome:
        if plan.round == 4 and self._is_due:
            self._is_due = False
            raise LostError("the power is gone")
        return super().train(plan, done, following)

    def start(self, again: bool = False) -> list[Facts]:
        if again:
            self._meanwhile()
        return super().start(again)

    def close(self) -> None:
        self.aggregator = self.worker = None  # type: ignore[assignment]


def damage(experiment: Experiment, round_: int) -> None:
    """Flip a bit of each client's state of a round."""
    (store,) = state_stores(experiment).values()
    for client in range(experiment.clients):
        path, offset = store._place(client)
        data = bytearray(path.read_bytes())
        for place in (offset, offset + store._slot):
            if struct.unpack_from("<12sIq", data, place)[2] == round_:
                data[place + 40] ^= 1
        path.write_bytes(data)


def events(folder: Path) -> list[list[str]]:
    return pd.read_parquet(folder / "events")[["kind", "message"]].to_numpy().tolist()


def test_damaged_states_take_a_resumed_run_to_an_older_checkpoint(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    experiment = scaffold(tmp_path)
    broken_off(experiment, after=4)
    files = Checkpoints(checkpoint_folder(experiment), 2)
    assert files.rounds() == [2, 3]
    damage(experiment, 3)
    watch = Watch()
    resume(tmp_path, experiment.run_id, callbacks=[watch])
    assert watch.rounds == [3, 4, 5]
    (_, first), (kind, why) = events(tmp_path)
    assert (first, kind) == ("from round 3 on", "damaged checkpoint")
    assert why.startswith("of round 3: ")
    assert "after round 3 is lost" in why
    assert_identical(without_history(everything(experiment)), whole)


def test_a_second_break_after_that_is_gone_on_from_too(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    """The damaged checkpoint is gone: its rows are, which it would ask for."""
    experiment = scaffold(tmp_path)
    broken_off(experiment, after=4)
    damage(experiment, 3)

    class Stop(Watch):
        def round_started(self, round_: int) -> None:
            raise RuntimeError("the power is gone again")

    with pytest.raises(RuntimeError, match="again"):
        resume(tmp_path, experiment.run_id, callbacks=[Stop()])
    assert Checkpoints(checkpoint_folder(experiment), 2).rounds() == [2]
    assert pd.read_parquet(tmp_path / "rounds")["round"].tolist() == [0, 1, 2]
    resume(tmp_path, experiment.run_id)
    assert_identical(without_history(everything(experiment)), whole)


def test_damaged_states_take_a_run_that_loses_something_to_an_older_checkpoint(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    experiment = scaffold(tmp_path)
    watch = Watch()
    backend = Losing(experiment, lambda: damage(experiment, 3))
    run(experiment, backend=backend, callbacks=[watch])
    assert watch.rounds == [0, 1, 2, 3, 3, 4, 5]
    (recovered, damaged) = events(tmp_path)
    assert recovered == ["recovered", "in round 4, from round 3 on: the power is gone"]
    assert damaged[0] == "damaged checkpoint"
    assert_identical(without_history(everything(experiment)), whole)


def test_with_all_states_damaged_the_newest_is_named(tmp_path: Path) -> None:
    experiment = scaffold(tmp_path)
    broken_off(experiment, after=4)
    damage(experiment, 3)
    shutil.rmtree(undo_folder(state_folder(experiment)))
    with pytest.raises(StateError, match="after round 3 is lost"):
        resume(tmp_path, experiment.run_id)
    assert Checkpoints(checkpoint_folder(experiment), 2).rounds() == [2, 3]


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_while_a_run_goes_back_ends_it_as_any_other(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    experiment = scaffold(tmp_path, checkpoints={"seconds": 3600.0})
    assert run(experiment, backend=Losing(experiment, interrupt)).status == "interrupted"
    resume(tmp_path, experiment.run_id)
    assert_identical(without_history(everything(experiment)), whole)


# --- other arithmetic ----------------------------------------------------------------------------


def begun_elsewhere(folder: Path) -> None:
    """Have a run's row say that its workers were of another kind."""
    (path,) = (folder / "runs").rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    place = table.schema.get_field_index("fingerprint")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array([OTHER])), path)


def test_a_run_does_not_go_on_with_other_arithmetic(tmp_path: Path) -> None:
    experiment = scaffold(tmp_path)
    broken_off(experiment, after=2)
    begun_elsewhere(tmp_path)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.*"))
    with pytest.raises(EngineError, match=rf"the run began with \({OTHER}\), .* --force"):
        resume(tmp_path, experiment.run_id)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.*"))
    resume(tmp_path, experiment.run_id, force=True)


def test_it_does_if_that_is_allowed(tmp_path: Path) -> None:
    experiment = scaffold(tmp_path, engine={"backend": "serial", "allow_mixed": True})
    broken_off(experiment, after=2)
    begun_elsewhere(tmp_path)
    resume(tmp_path, experiment.run_id)


class Moved(Losing):
    """After its loss it is on another kind of machine."""

    def start(self, again: bool = False) -> list[Facts]:
        facts = super().start(again)
        return [replace(fact, fingerprint=OTHER) for fact in facts] if again else facts


@pytest.mark.parametrize("allowed", [False, True])
def test_a_loss_does_not_move_a_run_to_other_arithmetic(tmp_path: Path, allowed: bool) -> None:
    experiment = scaffold(tmp_path, engine={"backend": "serial", "allow_mixed": allowed})
    backend = Moved(experiment, lambda: None)
    if allowed:
        assert run(experiment, backend=backend).status == "finished"
        return
    with pytest.raises(EngineError, match=f"got {OTHER}. engine.allow_mixed=true"):
        run(experiment, backend=backend)
    assert pd.read_parquet(tmp_path / "runs")["status"].tolist() == ["failed"]
    assert pd.read_parquet(tmp_path / "rounds")["round"].tolist() == [0, 1, 2, 3]


@pytest.mark.ray  # Nothing starts, but importing Ray takes seconds.
def test_a_process_that_is_started_again_is_asked() -> None:
    from spatl_ray.engine.actors import Held

    held = Held(None, frozenset({"this kind"}))
    held.check("client-actor-1", "this kind")
    Held(None).check("client-actor-1", OTHER)
    with pytest.raises(LostError, match=f"client-actor-1 .* another kind of machine .{OTHER}"):
        held.check("client-actor-1", OTHER)


def test_a_node_whose_folder_no_checkpoint_names_keeps_its_states(tmp_path: Path) -> None:
    """Older checkpoints name none; one that names others has no use for them."""
    experiment = scaffold(tmp_path)
    broken_off(experiment, after=3)
    (newest,) = Checkpoints(checkpoint_folder(experiment), 2).rounds()[-1:]
    last = Checkpoints(checkpoint_folder(experiment), 2).load(newest).driver["last"]
    backend = Losing(experiment, lambda: None)
    backend.start()
    worker = backend.worker
    assert worker.take_back(last, ()) == []
    assert worker.take_back(last, {worker.store.folder.name}) == []
    assert worker.take_back(last, {"another"}) == np.flatnonzero(last >= 0).tolist()


# --- rules that need every update ----------------------------------------------------------------


class StartedAgain(Worker):
    """Its process was started again between training and verdicts of round 1."""

    def commit(
        self, task: GroupTask, broadcast: BroadcastBytes, verdicts: Mapping[int, Verdict]
    ) -> None:
        if task.round == 1:
            self._pending.clear()
        super().commit(task, broadcast, verdicts)


class Restarting(SerialBackend):
    """With such a worker."""

    def start(self, again: bool = False) -> list[Facts]:
        facts = super().start(again)
        device = self.worker.device
        self.worker = StartedAgain(self._experiment, self._data, self._states, device, "serial")
        return facts


def troubled(folder: Path, **options: Any) -> Experiment:
    """Three rounds by the median; in the second, client 2 fails as `options` say."""
    log = folder / "log"
    log.mkdir(parents=True)
    algorithm = {"name": "troubles:Troubled", "options": {"log": str(log), "2": "fail", **options}}
    return small(folder / "results", algorithm, aggregation={"rule": "median"})


def restarting(experiment: Experiment) -> Restarting:
    data = federate(load_dataset(experiment.data, experiment.seed), experiment)
    return Restarting(experiment, data, state_folder(experiment))


def test_who_failed_before_a_restart_has_failed(tmp_path: Path) -> None:
    """The second time, client 2 would not."""
    found = []
    for name, make in (("plain", None), ("again", restarting)):
        experiment = troubled(tmp_path / name, times=1)
        run(experiment, backend=make and make(experiment))
        found.append(everything(experiment))
    assert_identical(*found)


def test_who_counts_and_fails_after_a_restart_takes_the_run_back(tmp_path: Path) -> None:
    """Its update is in the model, its state nowhere: the round comes again."""
    experiment = troubled(tmp_path / "again", after=1, times=1)
    run(experiment, backend=restarting(experiment))
    ((kind, message),) = events(tmp_path / "again" / "results")
    assert kind == "recovered"
    assert "client 2 counts in round 1" in message
    assert message.endswith("it failed: RuntimeError: the client broke")
    plain = troubled(tmp_path / "plain", times=0)
    run(plain)
    assert_identical(*(without_history(everything(each)) for each in (experiment, plain)))
