"""From a module to its graph: torch.fx traces it, one forward pass gives shapes and operations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ModelError, SpatlError
from spatl_ray.graphs.flop_counter import FlopCounter
from spatl_ray.graphs.graph import Graph, Node
from spatl_ray.graphs.operations import is_in_place, kind_of, window
from spatl_ray.graphs.tracer import Tracer
from spatl_ray.models.coupling import channel_groups
from spatl_ray.models.split import PREDICTOR, SplitModel, blank
from spatl_ray.parameters import ChannelGroup

SAMPLES = 2
"""In the batch that is traced with: one would make an axis of size 1."""


def trace(split: SplitModel, spec: SampleSpec, groups: tuple[ChannelGroup, ...]) -> Graph:
    """The graph of a network in evaluation mode.

    The module's values, buffers and mode stay as they are. Modules of torch.nn are one node each,
    others are seen through.

    Args:
        split: the network.
        spec: of the data.
        groups: the channel groups of its space.

    Raises:
        ModelError: names a module that cannot be traced, e.g. because it has an if on its input's values.
    """
    module = split.module
    first = next(module.parameters())
    sample = blank(spec, SAMPLES, first.dtype).to(first.device)
    with evaluation_mode(module):
        known, member = channel_groups(split, spec, first.dtype)
        traced, owners = _traced(module, sample)
        measured = _Measuring(traced).measure(sample)
    index = {group.name: i for i, group in enumerate(groups)}
    layers = {tensor: known[i].name for tensor, i in member.items()}
    builder = _Builder(split, traced, owners, measured, index)
    return Graph(tuple(builder.nodes()), groups, traced, _followers(builder.modules, layers, index))


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode, and back in the one it had.

    Sets the attribute: exported modules have no `eval()`.
    """
    modes = [(each, each.training) for each in module.modules()]
    try:
        for each, _ in modes:
            each.training = False
        yield
    finally:
        for each, mode in modes:
            each.training = mode


def _traced(module: nn.Module, sample: Tensor) -> tuple[fx.GraphModule, Mapping[str, str]]:
    """The traced module, and for each of its nodes the path of the module whose forward pass made it."""
    tracer = Tracer(sample)
    attributes = set(vars(module))
    try:
        traced = fx.GraphModule(module, tracer.trace(module))
        _drop_unused(traced)
        traced.delete_all_unused_submodules()
        traced.recompile()
    except SpatlError:
        raise
    except Exception as error:
        place = tracer.failed or f"its own forward pass ({type(module).__name__})"
        raise ModelError(
            f"the network must have a graph that is the same for all samples, got {place}, which "
            f"cannot be traced: {type(error).__name__}: {error}. Write it without if, for, len() or "
            "int() on tensors, or as a module of torch.nn, or choose a selection that needs no graph"
        ) from error
    finally:
        # torch.fx leaves the constants of a forward pass on the module.
        for name in set(vars(module)) - attributes:
            delattr(module, name)
    return traced, {name: path for name, (path, _) in tracer.node_name_to_scope.items()}


def _drop_unused(traced: fx.GraphModule) -> None:
    """Erase the nodes whose output nothing reads, unless they change a tensor in place.

    (torch.fx's own elimination erases those too.)
    """
    modules = dict(traced.named_modules())
    for node in reversed(traced.graph.nodes):
        module = modules[str(node.target)] if node.op == "call_module" else None
        if not node.users and not node.is_impure() and not is_in_place(node, module):
            traced.graph.erase_node(node)


@dataclass(frozen=True)
class _Measured:
    """The shape of a node's output for one sample, and its operations for one."""

    shape: tuple[int, ...]
    flops: float


class _Measuring(fx.Interpreter):
    """Runs a traced module and notes the shape and the operations of each node."""

    @torch.no_grad()
    def measure(self, sample: Tensor) -> Mapping[str, _Measured]:
        """The notes by node name."""
        self.found: dict[str, _Measured] = {}
        self.run(sample)
        return self.found

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        with FlopCounter() as counter:
            result = super().run_node(n)
        tensor = result[0] if isinstance(result, tuple) and result else result
        shape: tuple[int, ...] = ()
        if isinstance(tensor, Tensor):
            shape = tuple(tensor.shape if n.op == "get_attr" else tensor.shape[1:])
        self.found[n.name] = _Measured(shape, counter.flops / SAMPLES)
        return result


class _Builder:
    """Makes the nodes of a graph.

    Args:
        split: the network.
        traced: its trace.
        owners: node name -> path of the module whose forward pass made it.
        measured: node name -> shape and operations.
        groups: group name -> its index.
    """

    def __init__(
        self,
        split: SplitModel,
        traced: fx.GraphModule,
        owners: Mapping[str, str],
        measured: Mapping[str, _Measured],
        groups: Mapping[str, int],
    ) -> None:
        self.split = split
        self.traced = traced
        self.owners = owners
        self.measured = measured
        self.groups = groups
        self.modules = dict(traced.named_modules())
        self.counted: set[int] = set()

    def nodes(self) -> Iterator[Node]:
        """The nodes in topological order."""
        index: dict[fx.Node, int] = {}
        parts: dict[fx.Node, str] = {}
        for i, node in enumerate(self.traced.graph.nodes):
            index[node] = i
            parts[node] = self._part(node, parts)
            inputs = tuple(index[each] for each in node.all_input_nodes)
            yield self._node(node, inputs, parts[node])

    def _node(self, node: fx.Node, inputs: tuple[int, ...], part: str) -> Node:
        """One node."""
        path = str(node.target) if node.op == "call_module" else None
        module = self.modules[path] if path is not None else None
        measured = self.measured[node.name]
        rank = len(measured.shape) - 1
        kernel, stride = window(node, module, rank)
        return Node(
            name=node.name,
            kind=kind_of(node, module),
            module=path,
            inputs=inputs,
            shape=measured.shape,
            part=part,
            group=self.groups.get(path, -1) if path is not None else -1,
            kernel=kernel,
            stride=stride,
            flops=measured.flops,
            parameters=self._new_parameters(node, module),
        )

    def _part(self, node: fx.Node, parts: Mapping[fx.Node, str]) -> str:
        """A module's part, else the forward pass's; what comes behind the predictor belongs to it."""
        if node.op == "call_module":
            return self.split.part_of(str(node.target))
        owner = self.owners.get(node.name, "")
        if not owner and any(parts[each] == PREDICTOR for each in node.all_input_nodes):
            return PREDICTOR
        return self.split.part_of(owner)

    def _new_parameters(self, node: fx.Node, module: nn.Module | None) -> int:
        """Number of a node's parameters that no earlier node has."""
        tensors = list(module.parameters()) if module is not None else []
        if node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            value = getattr(self.traced.get_submodule(path), name)
            tensors = [value] if isinstance(value, nn.Parameter) else []
        new = [t for t in tensors if id(t) not in self.counted]
        self.counted.update(map(id, new))
        return sum(t.numel() for t in new)


def _followers(
    modules: Mapping[str, nn.Module], layers: Mapping[str, str], index: Mapping[str, int]
) -> dict[str, int]:
    """The normalisations of which weight and bias are under a layer's mask, and its group.

    Args:
        modules: of the traced network, by path.
        layers: tensor name -> name of the layer whose mask covers it.
        index: of each group by its name.
    """
    return {
        path: index[layers[f"{path}.weight"]]
        for path in modules
        if path not in index and layers.get(f"{path}.weight") in index and f"{path}.bias" in layers
    }
