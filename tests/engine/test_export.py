"""`spatl export`: the smaller network is the client's, its report is true, and bad input leaves nothing."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_files import files_of_at_most
from small_runs import small
from torch.utils.flop_counter import FlopCounterMode

from spatl_ray import Dataset, run
from spatl_ray.callbacks import Callback
from spatl_ray.cli import main
from spatl_ray.config import Experiment
from spatl_ray.engine.export import EPISODES, export_client
from spatl_ray.engine.finished import FinishedRun
from spatl_ray.errors import ConfigError, ResultsError, StateError

pytestmark = pytest.mark.integration

MODEL = {"name": "resnet20", "options": {"width": 4}}
AGENT = {"name": "spatl", "agent": {"episodes": 2, "participations": 1, "budget": 0.5}}


def ran(folder: Path, algorithm: Any = AGENT, **fields: Any) -> Experiment:
    """One round of three clients."""
    fields = {"rounds": 1, "clients": 3, "model": MODEL, **fields}
    experiment = small(folder, algorithm, **fields)
    run(experiment)
    return experiment


@pytest.fixture(scope="module")
def agent_run(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return ran(tmp_path_factory.mktemp("agent"))


def exported(experiment: Experiment, out: Path, client: int = 1, **options: Any) -> dict[str, Any]:
    """The report."""
    folder = Path(experiment.results.folder)
    export_client(folder, experiment.run_id, client, out, repeats=1, **options)
    found: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return found


def masked_outputs(experiment: Experiment, bits: np.ndarray, x: torch.Tensor) -> torch.Tensor:
    """What client 1's whole network gives for inference: removed channels 0, statistics taken anew."""
    finished = FinishedRun(Path(experiment.results.folder), experiment.run_id)
    view, _ = finished.client(1)
    blueprint = finished.worker.blueprint
    whole = blueprint.algorithm.personal_model(view.received, view.state)
    blueprint.model.load(finished.worker.evaluator.kept(whole, bits, 1))
    blueprint.model.evaluate()
    with torch.no_grad():
        return blueprint.model.module(x)


def test_the_program_is_the_clients_masked_network(agent_run: Experiment, tmp_path: Path) -> None:
    report = exported(agent_run, tmp_path / "out")
    finished = FinishedRun(Path(agent_run.results.folder), agent_run.run_id)
    view, _ = finished.client(1)
    algorithm = finished.worker.algorithm
    whole = algorithm.personal_model(view.received, view.state)
    selection = algorithm.inference(view, whole, EPISODES)
    assert selection is not None
    assert selection.inference is not None
    assert not selection.inference.all()
    program = torch.export.load(tmp_path / "out/model.pt2")
    for split in ("train", "test"):
        x, y = finished.worker.population.samples(1, split)
        with torch.no_grad():
            found = program.module()(x)
        masked = masked_outputs(agent_run, selection.inference, x)
        assert torch.allclose(found, masked, rtol=0, atol=1e-5 * max(1, masked.abs().max()))
    dense, slim = report["networks"]
    correct = (found.argmax(dim=1) == y).double().mean()
    assert slim["local_test_accuracy"] == pytest.approx(float(correct))
    assert report["has_trained"]
    assert report["largest_difference_to_masked"] <= 1e-5
    assert slim["flops"] <= 0.5 * dense["flops"]


def holds_pickle(data: bytes) -> bool:
    """Whether bytes are a pickle from their first to a STOP, or an archive, as torch writes around one."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        return True
    try:
        pickletools.dis(data, out=io.StringIO())
    except (ValueError, IndexError, struct.error):
        return False
    return True


def test_costs_are_those_that_torch_counts(agent_run: Experiment, tmp_path: Path) -> None:
    report = exported(agent_run, tmp_path / "out")
    program = torch.export.load(tmp_path / "out/model.pt2").module()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        program(torch.zeros(1, 1, 8, 8))
    slim = report["networks"][1]
    assert slim["flops"] == counter.get_total_flops()
    assert slim["parameters"] == sum(p.numel() for p in program.parameters())
    assert set(slim["latency_seconds"]) == {"1", "64"}
    assert min(slim["latency_seconds"].values()) > 0


def test_the_state_dict_is_the_programs_and_nothing_is_pickled(
    agent_run: Experiment, tmp_path: Path
) -> None:
    exported(agent_run, tmp_path / "out", epochs=1)
    state = load_file(tmp_path / "out/model.safetensors")
    program = torch.export.load(tmp_path / "out/model.pt2")
    assert state.keys() == program.state_dict.keys()
    assert all(torch.equal(value, program.state_dict[name]) for name, value in state.items())
    assert_no_pickle(tmp_path / "out", state)


def assert_no_pickle(out: Path, state: Mapping[str, torch.Tensor]) -> None:
    with zipfile.ZipFile(out / "model.pt2") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert [name for name, data in parts.items() if holds_pickle(data)] == []
    sizes = sorted(len(data) for name, data in parts.items() if "/weight_" in name)
    assert sizes == sorted(value.nbytes for value in state.values())
    assert not holds_pickle((out / "model.safetensors").read_bytes())
    saved = io.BytesIO()
    torch.save(dict(state), saved)
    assert holds_pickle(saved.getvalue())
    assert holds_pickle(pickle.dumps({"a": 1}))


def test_fine_tuning_trains_the_smaller_network(agent_run: Experiment, tmp_path: Path) -> None:
    first = exported(agent_run, tmp_path / "first", epochs=12)
    second = exported(agent_run, tmp_path / "second", epochs=12)
    without = exported(agent_run, tmp_path / "without")
    dense, slim, dense_tuned, tuned = first["networks"]
    assert [n["network"] for n in first["networks"][2:]] == ["dense, tuned", "slim, tuned"]
    assert dense_tuned["flops"] == dense["flops"]
    assert dense_tuned["local_test_accuracy"] > dense["local_test_accuracy"]
    assert tuned["flops"] == slim["flops"]
    assert tuned["local_test_accuracy"] > slim["local_test_accuracy"]
    assert without["networks"][1]["local_test_accuracy"] == slim["local_test_accuracy"]
    one, same, other = (
        load_file(tmp_path / name / "model.safetensors") for name in ("first", "second", "without")
    )
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())
    assert second["networks"][3]["local_test_accuracy"] == tuned["local_test_accuracy"]


def test_the_agent_searches_anew_for_the_final_model(agent_run: Experiment, tmp_path: Path) -> None:
    report, known, again = (
        exported(agent_run, tmp_path / f"{index}", episodes=episodes)
        for index, episodes in enumerate((None, 0, 30))
    )
    assert (report["episodes"], known["episodes"]) == (30, 0)
    assert report["evaluations"] > 30
    assert known["evaluations"] == 0
    assert known["validation_accuracy"] is None
    assert report["validation_accuracy"] == again["validation_accuracy"]
    assert report["networks"][1]["flops"] == again["networks"][1]["flops"]
    finished = FinishedRun(Path(agent_run.results.folder), agent_run.run_id)
    view, _ = finished.client(1)
    algorithm = finished.worker.algorithm
    model = algorithm.personal_model(view.received, view.state)
    before = algorithm.inference(view, model)
    assert before is not None
    score = view.validate(model, 256, before.inference)
    assert score is not None
    assert report["validation_accuracy"] >= score.accuracy


def test_a_clients_budget_of_flops_is_obeyed(tmp_path: Path) -> None:
    algorithm = {"name": "spatl", "inference": {"keep": 0.9}}
    devices = {"budget_flops": {"name": "between", "low": 0.3, "high": 0.6}}
    experiment = ran(tmp_path, algorithm, devices=devices)
    shares = []
    for client in range(3):
        dense, slim = exported(experiment, tmp_path / f"out{client}", client)["networks"]
        shares.append(slim["flops"] / dense["flops"])
    assert max(shares) <= 0.6
    assert len(set(shares)) > 1


def test_a_client_that_never_trained_is_said_to(tmp_path: Path) -> None:
    algorithm = {"name": "spatl", "inference": {"keep": 0.5}}
    experiment = ran(tmp_path, algorithm, sample_ratio=0.34)
    trained = [exported(experiment, tmp_path / f"out{c}", c)["has_trained"] for c in range(3)]
    assert sorted(trained) == [False, False, True]


def test_the_command_prints_a_table(
    agent_run: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "out")
    where = ["--folder", agent_run.results.folder, "--out", folder]
    arguments = ["export", agent_run.run_id, "--client", "0", "--repeats", "1", *where]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["dense", "slim"]
    assert f"are in {folder}" in out
    assert main(arguments) == 2
    assert "--out must be a folder that is not there yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client": 3}, r"--client must be in \[0, 3\), got 3"),
        ({"client": -1}, r"--client must be in \[0, 3\), got -1"),
        ({"epochs": -1}, "--epochs must be at least 0, got -1"),
        ({"repeats": 0}, "--repeats must be at least 1, got 0"),
        ({"episodes": -1}, "--episodes must be at least 0, got -1"),
    ],
)
def test_numbers_out_of_range_are_refused(
    agent_run: Experiment, tmp_path: Path, options: dict[str, int], message: str
) -> None:
    folder, out = Path(agent_run.results.folder), tmp_path / "out"
    with pytest.raises(ConfigError, match=message):
        export_client(folder, agent_run.run_id, **{"client": 0, "out": out, **options})
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_run_is_refused(agent_run: Experiment, tmp_path: Path) -> None:
    folder = Path(agent_run.results.folder)
    message = f"RUN must be a run in .*, got 'nix'; there are: {agent_run.run_id}"
    with pytest.raises(ResultsError, match=message):
        export_client(folder, "nix", 0, tmp_path / "out")
    with pytest.raises(ResultsError, match="there are: none"):
        export_client(tmp_path, "nix", 0, tmp_path / "out")


@pytest.mark.parametrize("algorithm", ["fedavg", {"name": "spatl"}])
def test_a_run_that_removes_nothing_is_refused(tmp_path: Path, algorithm: Any) -> None:
    experiment = ran(tmp_path, algorithm)
    with pytest.raises(
        ConfigError, match=r"algorithm\.agent or algorithm\.inference must be given"
    ):
        exported(experiment, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_an_agent_nothing_is_searched(tmp_path: Path) -> None:
    experiment = ran(tmp_path, {"name": "spatl", "inference": {"keep": 0.5}})
    with pytest.raises(ConfigError, match="--episodes must be 0 for a run without an agent, got 3"):
        exported(experiment, tmp_path / "out", episodes=3)
    assert not (tmp_path / "out").exists()
    report = exported(experiment, tmp_path / "out")
    assert (report["episodes"], report["evaluations"]) == (0, 0)


def test_without_validation_samples_nothing_is_searched(tmp_path: Path) -> None:
    split = {"train": 0.8, "validation": 0.0, "test": 0.2}
    algorithm = {"name": "spatl", "agent": {"participations": 0, "budget": 0.5}}
    experiment = ran(tmp_path, algorithm, data={"name": "digits", "split": split})
    with pytest.raises(ConfigError, match="--episodes must be 0 for client 1, which has no valid"):
        exported(experiment, tmp_path / "out", episodes=3)
    assert not (tmp_path / "out").exists()
    report = exported(experiment, tmp_path / "out")
    assert (report["episodes"], report["evaluations"]) == (0, 0)
    assert report["validation_accuracy"] is None


def test_a_place_that_cannot_be_written_is_refused(agent_run: Experiment, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--out must be a place that can be written, got "):
        exported(agent_run, tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_nothing(agent_run: Experiment, tmp_path: Path) -> None:
    with (
        files_of_at_most(2_000),
        pytest.raises(ConfigError, match="--out must be a place that can be written, got "),
    ):
        exported(agent_run, tmp_path / "out", episodes=0)
    assert list(tmp_path.iterdir()) == []


class Stop(Callback):
    def round_ended(self, row: object) -> None:
        raise KeyboardInterrupt


def test_a_run_that_did_not_finish_is_refused(tmp_path: Path) -> None:
    experiment = small(tmp_path, AGENT, model=MODEL, clients=3)
    run(experiment, callbacks=(Stop(),))
    with pytest.raises(ResultsError, match="must have finished, got status 'interrupted'"):
        exported(experiment, tmp_path / "out")


def test_data_in_memory_are_not_to_be_had_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(90, 1, 8, 8)), np.arange(90) % 3
    dataset = Dataset.from_arrays("mine", x, y, x[:30], y[:30])
    algorithm = {"name": "spatl", "inference": {"keep": 0.5}}
    experiment = small(tmp_path, algorithm, model=MODEL, clients=3, rounds=1)
    summary = run(experiment, dataset=dataset)
    with pytest.raises(ConfigError, match="arrays in memory"):
        export_client(tmp_path, summary.run_id, 0, tmp_path / "out")


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_damaged_model_is_named(tmp_path: Path, size: int) -> None:
    experiment = ran(tmp_path, {"name": "spatl", "inference": {"keep": 0.5}})
    (path,) = tmp_path.glob("models/*/server.safetensors")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        StateError, match=r"server\.safetensors must be the model of a finished run"
    ):
        exported(experiment, tmp_path / "out")
    path.unlink()
    with pytest.raises(
        StateError, match=r"server\.safetensors must be the model of a finished run"
    ):
        exported(experiment, tmp_path / "out")
    assert not (tmp_path / "out").exists()
