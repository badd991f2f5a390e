"""torch.fx's symbolic tracer, which knows sizes and dtypes, and which module it could not trace."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from spatl_ray.graphs.operations import IN_PLACE

QUERIES = frozenset(("size", "dim", "ndimension", "numel", "is_floating_point", "is_complex"))
ATTRIBUTES = frozenset(("shape", "ndim", "dtype", "device", "is_cuda"))
"""What a tensor says about itself without reading its values."""

Module = nn.Module
Arguments = tuple[Any, ...]
Options = dict[str, Any]


def is_query(node: fx.Node) -> bool:
    """Whether a node asks a tensor for its size, dtype or the like."""
    if node.op == "call_method":
        return node.target in QUERIES
    return node.target is getattr and node.args[1] in ATTRIBUTES


class _Proxy(fx.Proxy):
    """Stands for a tensor, which `x += y` and the like change: torch.fx would note `x + y`."""


def _in_place(name: str) -> Callable[[fx.Proxy, Any], Any]:
    """The method of one of `operator`'s functions; sizes and the like are no tensors and stay."""

    def method(self: fx.Proxy, other: Any) -> Any:
        if self.tracer.is_common(self.node):  # type: ignore[attr-defined]
            return NotImplemented
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})

    return method


for _name in IN_PLACE:
    setattr(_Proxy, f"__{_name}__", _in_place(_name))


class Tracer(fx.Tracer):
    """Traces modules of torch.nn as one node each, and all others through their forward pass.

    A condition on what samples have in common (dimensions, sizes, dtype) is decided as it is for the
    given sample; one on their values cannot be traced. The network is called with one argument.

    Args:
        sample: a batch that the network takes.

    Attributes:
        failed: the innermost module whose forward pass could not be traced, with its class.
    """

    def __init__(self, sample: Tensor) -> None:
        super().__init__()
        self.failed = ""
        self._sample = sample
        self._running = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for a node's output in a forward pass."""
        return _Proxy(node, self)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """Only the samples: other arguments keep their defaults."""
        return root_fn, [self.root, self.create_proxy("placeholder", "x", (), {})]

    def call_module(
        self, m: Module, forward: Callable[..., Any], args: Arguments, kwargs: Options
    ) -> Any:
        """As torch.fx does, and remember where it fails."""
        if self._running:
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            paths = {module: path for path, module in self.root.named_modules()}
            path = paths.get(m, "a module that is no submodule")
            self.failed = self.failed or f"{path} ({type(m).__name__})"
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """As torch.fx does, and the value itself while a prefix of the graph is run."""
        if self._running:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Decide a condition that does not depend on the samples' values."""
        if not self.is_common(obj.node):
            return super().to_bool(obj)
        self._running = True
        try:
            return bool(self._value(obj.node))
        finally:
            self._running = False

    def is_common(self, node: fx.Node) -> bool:
        """Whether a value is the same for all samples: it comes from queries and constants only."""
        if is_query(node):
            return True
        inputs = node.all_input_nodes
        is_called = node.op in ("call_function", "call_method")
        return is_called and bool(inputs) and all(map(self.is_common, inputs))

    def _value(self, wanted: fx.Node) -> Any:
        """A node's value for the sample, by running the graph up to it."""
        interpreter = fx.Interpreter(self.root, garbage_collect_values=False, graph=self.graph)
        with torch.no_grad():
            for node in self.graph.nodes:
                run = self._sample if node.op == "placeholder" else interpreter.run_node(node)
                interpreter.env[node] = run
                if node is wanted:
                    break
        return interpreter.env[wanted]
