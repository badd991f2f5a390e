"""Accuracy of a network with some of its channels, by running the smaller network."""

from __future__ import annotations

import torch
from torch import Tensor

from spatl_ray.graphs.slim import slim
from spatl_ray.selection.environment import Accuracy
from spatl_ray.selection.pruning import Pruned, Pruner
from spatl_ray.training.recalibrate import recalibrate


def slimmed_accuracy(
    pruner: Pruner, seen: Tensor, x: Tensor, y: Tensor, batch_size: int = 64
) -> Accuracy:
    """The reward, from a physically smaller network: what is not kept costs no time.

    It is the masked network's, as their outputs are the same up to rounding, with batch norm's
    statistics taken anew.

    Args:
        pruner: of the network, whose module has the values to be scored.
        seen: training samples that the statistics are taken of, shape (m, *shape).
        x: samples that no test split has, shape (n, *shape).
        y: labels, shape (n,).
        batch_size: samples a forward pass.
    """

    @torch.no_grad()
    def accuracy(pruned: Pruned) -> float:
        network = slim(pruner.graph, pruner.coupling, pruned.bits)
        recalibrate(network, seen)
        pieces = zip(x.split(batch_size), y.split(batch_size), strict=True)
        correct = sum(int((network(a).argmax(dim=1) == b).sum()) for a, b in pieces)
        return correct / len(y)

    return accuracy
