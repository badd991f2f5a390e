"""A network as a graph of operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import fx

from spatl_ray.parameters import ChannelGroup

KINDS = (
    "conv",
    "depthwise",
    "linear",
    "norm",
    "activation",
    "pool",
    "add",
    "concat",
    "pad",
    "reshape",
    "input",
    "output",
    "other",
)
"""What an operation does. `activation`: elementwise on one tensor, dropout too; `pool`: fewer or other
positions of each channel, strided slices and means too; `add`: elementwise on two tensors, products
too; `other`: recurrent layers, look-ups, queries of sizes, and whatever has no name here."""


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: its name in torch.fx's graph.
        kind: one of KINDS.
        module: path of the module that is called, None for functions and methods.
        inputs: indices of the nodes that it reads, in the order of its arguments.
        shape: of its output for one sample (without batch); of the first tensor of several, () of none.
        part: the model part it belongs to: "encoder" or "predictor".
        group: index of the channel group that is this layer, or -1.
        kernel, stride: of a convolution or pooling, one number a dimension.
        flops: of one sample's inference: 2 x multiply-adds of convolutions, matrix products and
            recurrent layers.
        parameters: number of its parameters, counted where they are used first.
    """

    name: str
    kind: str
    module: str | None
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    part: str
    group: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    flops: float = 0.0
    parameters: int = 0


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced network.

    Attributes:
        nodes: in topological order, one a node of `module.graph`.
        groups: the channel groups of the network's space, in their order.
        module: the network as it is in evaluation mode. It has the modules of torch.nn of the network it
            came from, so that it follows their values; buffers of other modules are those that
            were there when it was traced.
        followers: path of a normalisation -> index of the group whose mask covers its weight and bias.
    """

    nodes: tuple[Node, ...]
    groups: tuple[ChannelGroup, ...]
    module: fx.GraphModule
    followers: Mapping[str, int] = field(default_factory=dict)
