"""FLOPs and parameters of a network without the channels that a mask removes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from spatl_ray.arrays import Bits
from spatl_ray.graphs.coupling import Coupling, couple
from spatl_ray.graphs.flow import Labels
from spatl_ray.graphs.graph import Graph, Node

Values = npt.NDArray[np.float64]


class Cost:
    """What a smaller network costs, as a function of its mask.

    A layer of which I input and O output channels are kept has f I O FLOPs and w I O + b O
    parameters: f FLOPs and w weights a pair of channels, b = 1 with a bias. For depthwise
    convolutions and normalisations I = 1. Features behind a flattening count one by one, as inputs.
    Everything else is constant.

    Args:
        graph: the traced network.

    Attributes:
        dense_flops: of one sample's inference with all channels.
        dense_parameters: of the network with all channels.
    """

    dense_flops: float
    dense_parameters: int

    def __init__(self, graph: Graph) -> None:
        self._coupling = couple(graph)
        self.dense_flops = sum(node.flops for node in graph.nodes)
        self.dense_parameters = sum(node.parameters for node in graph.nodes)
        layers = _narrowed(graph, self._coupling)
        self._inputs = _Counts([inputs for _, inputs, _ in layers])
        self._outputs = _Counts([outputs for *_, outputs in layers])
        pairs, outputs = self._inputs.dense * self._outputs.dense, self._outputs.dense
        flops = np.array([node.flops for node, *_ in layers])
        parameters = np.array([node.parameters for node, *_ in layers])
        self._biases = np.array([float(_has_bias(graph, node)) for node, *_ in layers])
        self._flops = flops / pairs
        self._weights = (parameters - self._biases * outputs) / pairs
        self._other_flops = self.dense_flops - float(flops.sum())
        self._other_parameters = self.dense_parameters - int(parameters.sum())

    def flops(self, bits: Bits) -> float:
        """FLOPs of one sample's inference with the channels of the closed mask.

        Args:
            bits: shape (channels of all groups,).
        """
        kept = self._coupling.classes_of(bits)
        pairs = self._inputs.kept(kept) * self._outputs.kept(kept)
        return self._other_flops + float(self._flops @ pairs)

    def parameters(self, bits: Bits) -> int:
        """Number of parameters with the channels of the closed mask.

        Args:
            bits: shape (channels of all groups,).
        """
        kept = self._coupling.classes_of(bits)
        outputs = self._outputs.kept(kept)
        own = self._weights @ (self._inputs.kept(kept) * outputs) + self._biases @ outputs
        return self._other_parameters + round(float(own))


class _Counts:
    """How many channels of each of several tensors are kept.

    Args:
        tensors: the labels of each tensor's channels.

    Attributes:
        dense: number of channels of each tensor.
    """

    def __init__(self, tensors: Sequence[Labels]) -> None:
        found = [np.unique(labels, return_counts=True) for labels in tensors]
        self.dense: Values = np.array([float(len(labels)) for labels in tensors])
        none = np.zeros(0, dtype=np.int64)
        self._labels = np.concatenate([none, *(labels for labels, _ in found)])
        self._counts = np.concatenate([none, *(counts for _, counts in found)])
        ends = np.cumsum([len(labels) for labels, _ in found], dtype=np.int64)
        self._starts = np.concatenate([none, [0], ends])[: len(found)].astype(np.int64)

    def kept(self, classes: Bits) -> Values:
        """Number of kept channels of each tensor.

        Args:
            classes: whether each label is kept, the last one that of label -1.
        """
        if not len(self._starts):
            return self.dense
        kept = np.add.reduceat(self._counts * classes[self._labels], self._starts)
        return kept.astype(np.float64)


def _narrowed(graph: Graph, coupling: Coupling) -> list[tuple[Node, Labels, Labels]]:
    """The layers that a mask can make smaller, with the labels of what they read and give."""
    found = []
    single = np.array([-1])
    for node, outputs in zip(graph.nodes, coupling.tensors, strict=True):
        if node.kind not in ("conv", "depthwise", "linear", "norm"):
            continue
        reads_all = node.kind in ("conv", "linear")
        inputs = coupling.tensors[node.inputs[0]] if reads_all else single
        if max(inputs.max(initial=-1), outputs.max(initial=-1)) >= 0:
            found.append((node, inputs, outputs))
    return found


def _has_bias(graph: Graph, node: Node) -> bool:
    """Whether a layer has one parameter a channel beside its weights; a norm's bias counts as a weight."""
    layer = graph.module.get_submodule(str(node.module))
    return node.kind != "norm" and layer.bias is not None
