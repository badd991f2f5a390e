"""Floating-point operations of local training, counted by torch's own formulas."""

from __future__ import annotations

import torch
from torch.nn import functional

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.graphs.flop_counter import FlopCounter
from spatl_ray.models.flat import FlatModel
from spatl_ray.models.split import blank


def training_flops(
    model: FlatModel, spec: SampleSpec, parts: frozenset[str] | None = None
) -> float:
    """FLOPs of one forward and backward pass of one sample.

    Convolutions, matrix products and recurrent layers count; normalisation, activations, pooling and
    look-ups of embeddings do not. Counted on two samples and halved, because batch norm cannot train
    on one.

    Args:
        model: its values and mode are left as they were, its gradient is overwritten.
        spec: of the data.
        parts: that are trained; None for all. What is frozen costs no gradients of its own.
    """
    device, dtype = model.parameters.device, model.parameters.dtype
    before = model.buffers.clone()
    model.train(parts)
    counter = FlopCounter()
    with counter:
        logits = model.module(blank(spec, 2, dtype).to(device))
        functional.cross_entropy(
            logits, torch.zeros(2, dtype=torch.int64, device=device)
        ).backward()
    model.buffers.copy_(before)
    model.evaluate()
    return counter.flops / 2
