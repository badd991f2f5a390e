"""The trained network on which an agent learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spatl_ray import seeding
from spatl_ray.config import Model, Pretraining
from spatl_ray.data.dataset import Dataset, SampleSpec
from spatl_ray.errors import ConfigError
from spatl_ray.graphs.coupling import Scores
from spatl_ray.graphs.trace import trace
from spatl_ray.models.coupling import channel_groups
from spatl_ray.models.flat import FlatModel, make_layout
from spatl_ray.models.split import PREDICTOR, SplitModel, build_model
from spatl_ray.parameters import Array, ChannelGroup, ModelVector, Space
from spatl_ray.selection.checkpoint import Checkpoints
from spatl_ray.selection.environment import Accuracy
from spatl_ray.selection.features import Features
from spatl_ray.selection.pruning import Pruner
from spatl_ray.selection.salience import channel_norms
from spatl_ray.selection.scoring import slimmed_accuracy
from spatl_ray.training.local import LocalTask, Phase, Trainer
from spatl_ray.training.recalibrate import RECALIBRATION
from spatl_ray.training.schedule import learning_rate

EpochDone = Callable[[int, int, float], None]
"""Called with the number of epochs done, of all, and the last one's training loss."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained network, and samples that it was not trained on.

    Attributes:
        model: the network.
        space: its shared parameters: those of the encoder.
        start: its values before training.
        end: its values after training.
        trained: samples that it was trained on, and their labels.
        pruner: of the network, which holds the trained values.
        features: of the network.
        scores: L2 norms of its channels' weights.
        x: held-out samples, shape (n, *shape).
        y: their labels, shape (n,).
    """

    model: FlatModel
    space: Space
    start: ModelVector
    end: ModelVector
    trained: tuple[Tensor, Tensor]
    pruner: Pruner
    features: Features
    scores: Scores
    x: Tensor
    y: Tensor

    @property
    def weights(self) -> Array:
        """Of its encoder, shape (space.size,)."""
        return self.end.parameters[: self.space.size]


def train_subject(
    options: Pretraining,
    dataset: Dataset,
    checkpoints: Checkpoints,
    done: EpochDone,
    network: int = 0,
    device: str = "cpu",
) -> Subject:
    """Train a network, or read it.

    Args:
        options: which networks, and how they are trained.
        dataset: of whose training samples some train it and others are held out.
        checkpoints: hold it after each epoch.
        done: told of each epoch.
        network: index of `options.models`; added to the seed, so that equal ones differ.
        device: on which it is trained and scored.

    Raises:
        ConfigError: the network diverges.
        ModelError: a network that cannot be built or traced.
        StateError: a checkpoint that is damaged or of other options.
    """
    seed = options.seed + network
    split, groups, member = built(options.models[network], dataset.spec, seed)
    layout = make_layout(split, groups, member, lambda part: part != PREDICTOR, "average")
    model = FlatModel(split, layout, torch.device(device))
    rows = seeding.generator(seed, "pretraining rows").permutation(len(dataset.train_y))
    last = options.samples + options.held_out
    samples = _taken(dataset, rows[: options.samples], device)
    start = model.read()
    end = _trained(options, model, samples, checkpoints, done, network)
    model.load(end)
    pruner = Pruner(trace(split, dataset.spec, groups))
    scores = channel_norms(layout.shared, end.parameters[: layout.shared.size], 2)
    features = Features(pruner, layout.shared)
    held_out = _taken(dataset, rows[options.samples : last], device)
    return Subject(model, layout.shared, start, end, samples, pruner, features, scores, *held_out)


def accuracy_of(subject: Subject, x: Tensor, y: Tensor) -> Accuracy:
    """The reward of pruning it.

    Args:
        subject: the network.
        x: samples, shape (n, *shape).
        y: their labels, shape (n,).
    """
    return slimmed_accuracy(subject.pruner, subject.trained[0][:RECALIBRATION], x, y)


def built(
    model: Model, spec: SampleSpec, seed: int
) -> tuple[SplitModel, tuple[ChannelGroup, ...], Mapping[str, int]]:
    """A network that is to be trained, its channel groups and which tensors are theirs.

    Raises:
        ModelError: it cannot be built or traced.
    """
    split = build_model(model, spec, seed, torch.float32)
    return split, *channel_groups(split, spec, torch.float32)


def _trained(
    options: Pretraining,
    model: FlatModel,
    samples: tuple[Tensor, Tensor],
    checkpoints: Checkpoints,
    done: EpochDone,
    network: int,
) -> ModelVector:
    """The network after all epochs; the first ones may have been done before."""
    name = f"network-{network}"
    trainer, epochs = Trainer(model, options.training), options.training.epochs or 1
    vector, first = model.read(), 0
    saved = checkpoints.read(name)
    if saved is not None:
        arrays, facts = saved
        vector, first = ModelVector(arrays["parameters"], arrays["buffers"]), facts["epochs"]
    for epoch in range(first, epochs):
        rate = learning_rate(options.training, epoch, epochs)
        key = (options.seed + network, "pretraining network", epoch)
        with seeding.torch_seeded(*key):
            task = LocalTask(vector, phases=(Phase(epochs=1),))
            result = trainer.run(task, *samples, rate, seeding.generator(*key))
        vector = result.end
        _check_finite(vector, options, network, result.loss)
        values = {"parameters": vector.parameters, "buffers": vector.buffers}
        checkpoints.write(name, values, epochs=epoch + 1)
        done(epoch + 1, epochs, result.loss)
    return vector


def _check_finite(vector: ModelVector, options: Pretraining, network: int, loss: float) -> None:
    """Refuse a network that nothing can be learnt on."""
    if not (np.isfinite(vector.parameters).all() and np.isfinite(vector.buffers).all()):
        raise ConfigError(
            f"training.lr must be so that every network stays finite, got {options.training.lr:g}, with "
            f"which network {network} ({options.models[network].name}) diverged, loss {loss:g}"
        )


def _taken(dataset: Dataset, rows: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    """Some training samples and their labels."""
    x, y = (torch.from_numpy(part[rows]) for part in (dataset.train_x, dataset.train_y))
    return x.to(device), y.to(device)
