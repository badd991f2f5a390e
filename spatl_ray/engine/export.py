"""`spatl export`: a client's model without the channels that its selection removes, with figures.

The files: `model.pt2` (a torch.export program for any batch), `model.safetensors` (its state dict),
`report.json`. None holds a pickle.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, fx, nn

from spatl_ray import seeding
from spatl_ray.algorithms.base import ClientView
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.engine.finished import FinishedRun
from spatl_ray.errors import ConfigError, EngineError
from spatl_ray.graphs.latency import measure
from spatl_ray.graphs.slim import slim
from spatl_ray.graphs.trace import trace
from spatl_ray.models.flat import FlatModel, make_layout
from spatl_ray.models.heads import own_parts
from spatl_ray.models.split import SplitModel, blank
from spatl_ray.parameters import ModelVector
from spatl_ray.places import check_place
from spatl_ray.selection.pruning import Pruner
from spatl_ray.training.evaluate import Score, evaluate
from spatl_ray.training.local import LocalTask, Phase, Trainer
from spatl_ray.training.schedule import learning_rate

BATCHES = (1, 64)
"""Samples in the forward passes whose latency is measured."""

EPISODES = 30
"""Of the agent's search on a client's model (at most as many are published: Yu et al., SC22)."""

TOLERANCE = 1e-5
"""Between outputs of the smaller and the masked network, of the largest output."""


@dataclass(frozen=True)
class Figures:
    """What a network costs and how well it predicts.

    Attributes:
        network: dense or slim, and whether it is fine-tuned.
        flops: of one sample's inference.
        parameters: number of them.
        local_test_accuracy: on the client's own test split; None if that is empty.
        global_test_accuracy: on the run's sample of the global test set.
        latency_seconds: median of a forward pass by batch size, with one thread.
    """

    network: str
    flops: float
    parameters: int
    local_test_accuracy: float | None
    global_test_accuracy: float | None
    latency_seconds: Mapping[str, float]


def export_client(
    folder: str | Path,
    run_id: str,
    client: int,
    out: Path,
    epochs: int = 0,
    repeats: int = 50,
    episodes: int | None = None,
) -> list[Figures]:
    """Write a client's smaller model and report.

    Args:
        folder: the results folder, or an address, from which the run is fetched.
        run_id: a finished run in it.
        client: which one.
        out: folder that is made; nothing of it stays if anything fails.
        epochs: of fine-tuning on the client's own training split, the dense network too, to compare with.
        repeats: forward passes behind each latency.
        episodes: of the agent's search for what this model keeps: what it found in the run was for an earlier
            one. 0 keeps that; None is EPISODES where there are an agent and validation samples.

    Returns:
        Figures of the dense and the smaller network, and of both after fine-tuning if there are epochs.

    Raises:
        ConfigError: `out` is there already or cannot be made, a number out of range, a search without
            an agent or validation samples, or a run that removes nothing.
        ResultsError: no such run, or one that did not finish.
        EngineError: the smaller network's outputs are not those of the masked one.
    """
    _check(out, {"epochs": (epochs, 0), "repeats": (repeats, 1), "episodes": (episodes or 0, 0)})
    run = FinishedRun(folder, run_id)
    view, has_trained = run.client(client)
    episodes = _episodes(run, view, episodes)
    smaller = _Smaller(run, view, episodes)
    seconds = smaller.latency_seconds(repeats)
    rows = [smaller.figures(network, of) for network, of in seconds.items()]
    if epochs:
        smaller.fine_tune(epochs)
        rows += [smaller.figures(f"{network}, tuned", of) for network, of in seconds.items()]
    report = {
        "run_id": run_id,
        "client": client,
        "has_trained": has_trained,
        "episodes": episodes,
        "evaluations": smaller.evaluations,
        "validation_accuracy": smaller.reward,
        "epochs": epochs,
        "largest_difference_to_masked": smaller.difference,
        "networks": [asdict(row) for row in rows],
    }
    _write(out, smaller.network(), run.data.dataset.spec, report)
    return rows


def _check(out: Path, numbers: Mapping[str, tuple[int, int]]) -> None:
    """Refuse a folder that is there or cannot be made, or a number below its least."""
    if out.exists():
        raise ConfigError(f"--out must be a folder that is not there yet, got {str(out)!r}")
    for name, (value, least) in numbers.items():
        if value < least:
            raise ConfigError(f"--{name} must be at least {least}, got {value}")
    check_place(out / "report.json", "--out")


def _episodes(run: FinishedRun, view: ClientView, episodes: int | None) -> int:
    """Of the agent's search; without an agent or validation samples there is none."""
    has_agent = getattr(run.experiment.algorithm, "agent", None) is not None
    if episodes and not has_agent:
        raise ConfigError(f"--episodes must be 0 for a run without an agent, got {episodes}")
    _, validation = run.worker.population.samples(view.client, "validation")
    if episodes and not len(validation):
        raise ConfigError(
            f"--episodes must be 0 for client {view.client}, which has no validation samples, got "
            f"{episodes}"
        )
    if episodes is None:
        return EPISODES if has_agent and len(validation) else 0
    return episodes


class _Smaller:
    """A client's whole and smaller network."""

    def __init__(self, run: FinishedRun, view: ClientView, episodes: int) -> None:
        self._run, self._view = run, view
        self._worker = run.worker
        blueprint: Blueprint = run.worker.blueprint
        self._whole = blueprint.algorithm.personal_model(view.received, view.state)
        selection = blueprint.algorithm.inference(view, self._whole, episodes)
        if selection is None or selection.inference is None:
            raise ConfigError(
                "the run's algorithm.agent or algorithm.inference must be given for an export, got "
                "neither: it keeps all channels for inference"
            )
        self._bits, self.reward = selection.inference, selection.reward
        self.evaluations = selection.evaluations
        self._model = blueprint.model
        self._kept = run.worker.evaluator.kept(self._whole, self._bits, view.client)
        self._model.load(self._kept)
        spec, layout = run.data.dataset.spec, blueprint.algorithm.layout
        self._pruner = Pruner(trace(self._model.split, spec, layout.shared.groups))
        small = self._slimmed()
        split = SplitModel(small, self._model.split.parts)
        self._flat = FlatModel(
            split, make_layout(split, (), {}, lambda _: True, "average"), torch.device("cpu")
        )
        self._values = self._flat.read()
        self.difference = self._compared()

    def _slimmed(self) -> fx.GraphModule:
        return slim(self._pruner.graph, self._pruner.coupling, self._bits)

    @torch.no_grad()
    def _compared(self) -> float:
        """The largest difference to the masked network's outputs, of its largest output."""
        x, _ = self._worker.population.samples(self._view.client, "train")
        x = x[: BATCHES[-1]]
        self._model.load(self._kept)
        self._model.evaluate()
        expected = self._model.module(x)
        self._flat.evaluate()
        found = self._flat.module(x)
        difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
        if not difference <= TOLERANCE:
            raise EngineError(
                f"outputs of the smaller network must be the masked one's to {TOLERANCE:g}, got a "
                f"difference of {difference:g}"
            )
        return difference

    def fine_tune(self, epochs: int) -> None:
        """Train both on the client's own training split; the run's schedule, over these epochs."""
        self._whole = self._trained(self._model, self._whole, epochs)
        self._values = self._trained(self._flat, self._values, epochs)

    def _trained(self, model: FlatModel, values: ModelVector, epochs: int) -> ModelVector:
        # What remains has been chosen: scales need not fade any more.
        training = self._run.experiment.training.model_copy(update={"norm_sparsity": 0.0})
        view, trainer = self._view, Trainer(model, training)
        samples = self._worker.population.samples(view.client, "train")
        for epoch in range(epochs):
            rate = learning_rate(training, epoch, epochs)
            key = (view.seed, f"export {epoch}", view.round, view.client)
            task = LocalTask(values, phases=(Phase(own_parts(model.split), epochs=1),))
            with seeding.torch_seeded(*key):
                values = trainer.run(task, *samples, rate, seeding.generator(*key)).end
        return values

    def latency_seconds(self, repeats: int) -> dict[str, dict[str, float]]:
        """By network and batch size; it does not depend on values."""
        spec = self._run.data.dataset.spec
        modules = (self._model.module, self._flat.module)
        found = {str(batch): measure(modules, spec, batch, repeats) for batch in BATCHES}
        return {
            network: {batch: seconds[index] for batch, seconds in found.items()}
            for index, network in enumerate(("dense", "slim"))
        }

    def figures(self, network: str, latency_seconds: Mapping[str, float]) -> Figures:
        """Of the dense network, or of the smaller one, with its values as they are now."""
        is_dense = network.startswith("dense")
        model, values = (self._model, self._whole) if is_dense else (self._flat, self._values)
        cost = self._pruner.cost
        population = self._worker.population
        own = self._score(model, values, *population.samples(self._view.client, "test"))
        everyone = self._score(model, values, population.global_x, population.global_y)
        return Figures(
            network=network,
            flops=cost.dense_flops if is_dense else cost.flops(self._bits),
            parameters=sum(p.numel() for p in model.module.parameters()),
            local_test_accuracy=None if own is None else own.accuracy,
            global_test_accuracy=None if everyone is None else everyone.accuracy,
            latency_seconds=latency_seconds,
        )

    def _score(self, model: FlatModel, values: ModelVector, x: Tensor, y: Tensor) -> Score | None:
        return evaluate(model, values, x, y, self._run.experiment.evaluation.batch_size)

    def network(self) -> nn.Module:
        """The smaller network with tensors of its own."""
        self._flat.load(self._values)
        own = self._slimmed()
        own.load_state_dict(self._flat.module.state_dict())
        return own.eval()


def _write(out: Path, network: nn.Module, spec: SampleSpec, report: Mapping[str, object]) -> None:
    """All files, or none.

    Raises:
        ConfigError: they cannot be written, such as to a full disk.
    """
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    files = {
        "model.pt2": _program(network, spec),
        "model.safetensors": save(tensors),
        "report.json": (json.dumps(report, indent=2) + "\n").encode(),
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as made:
            whole = Path(made) / out.name
            whole.mkdir()
            for name, data in files.items():
                (whole / name).write_bytes(data)
            shutil.move(whole, out)
    except OSError as error:
        raise ConfigError(
            f"--out must be a place that can be written, got {str(out)!r}: {error}"
        ) from error


def _program(network: nn.Module, spec: SampleSpec) -> bytes:
    """A torch.export program for any batch; in memory, as torch ends the process if a disk is full."""
    sample = blank(spec, 2, next(network.parameters()).dtype)
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (sample,), dynamic_shapes=sizes)
    program.example_inputs = None  # torch would pickle them, and nobody needs them
    saved = BytesIO()
    torch.export.save(program, saved)
    return saved.getvalue()


def report_text(rows: Sequence[Figures]) -> str:
    """The figures as a table: a line a network, with its share of the dense one's cost."""
    heads = ["network", "MFLOPs", "share", "parameters", "share", "own test", "global test"]
    heads += [f"ms, batch {batch}" for batch in BATCHES]
    table = [heads, *(_cells(row, rows[0]) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in table
    )


def _cells(row: Figures, dense: Figures) -> list[str]:
    return [
        row.network,
        f"{row.flops / 1e6:.2f}",
        f"{row.flops / dense.flops:.3f}",
        f"{row.parameters:,}",
        f"{row.parameters / dense.parameters:.3f}",
        *(
            "-" if a is None else f"{a:.4f}"
            for a in (row.local_test_accuracy, row.global_test_accuracy)
        ),
        *(f"{1e3 * row.latency_seconds[str(batch)]:.2f}" for batch in BATCHES),
    ]
