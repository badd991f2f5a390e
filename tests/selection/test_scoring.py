"""The reward of the smaller network is that of the masked one with statistics of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flat_models import LR, digits, flatten, order, split_model
from pruners import pruner_of

from spatl_ray.config import Training
from spatl_ray.graphs.slim import slim
from spatl_ray.parameters import ModelVector
from spatl_ray.selection.pruning import Pruner
from spatl_ray.selection.salience import channel_norms
from spatl_ray.selection.scoring import slimmed_accuracy
from spatl_ray.training.local import LocalTask, Trainer
from spatl_ray.training.recalibrate import recalibrate

SEEN, OTHERS = slice(0, 48), slice(200, 360)


@pytest.mark.parametrize(
    ("name", "options"), [("resnet20", {"width": 4}), ("vgg11", {"width": 4, "norm": "batch"})]
)
def test_slimmed_equals_masked(name: str, options: dict[str, object]) -> None:
    shape = (1, 32, 32)
    model = flatten(split_model(name, shape, **options), shape)
    x, y = digits(360, side=32)
    trainer, task = Trainer(model, Training(epochs=8, batch_size=20)), LocalTask(model.read())
    vector = trainer.run(task, x[:200], y[:200], LR, order()).end
    model.load(vector)
    pruner: Pruner = pruner_of(model, shape=shape)
    space = model.layout.shared
    scores = channel_norms(space, vector.parameters[: space.size], 2)
    pruned = pruner.within(scores, np.random.default_rng(0).normal(size=len(pruner.layers)), 0.6)

    small = slim(pruner.graph, pruner.coupling, pruned.bits)
    with torch.no_grad():
        as_it_was = small(x[OTHERS])
    recalibrate(small, x[SEEN])
    accuracy = slimmed_accuracy(pruner, x[SEEN], x[OTHERS], y[OTHERS])(pruned)

    kept = model.layout.parameters.expand(pruned.bits)
    model.load(ModelVector(vector.parameters * kept, vector.buffers))
    recalibrate(model.module, x[SEEN])
    with torch.no_grad():
        expected = model.module(x[OTHERS])
        found = small(x[OTHERS])
    assert torch.allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert accuracy == float((found.argmax(dim=1) == y[OTHERS]).double().mean())
    assert not torch.allclose(found, as_it_was, atol=0.1)
