"""What the nodes of a traced network do, read off their modules, functions and methods."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
POOLS = tuple(
    getattr(nn, f"{kind}Pool{d}d")
    for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg")
    for d in (1, 2, 3)
)
CHANNEL_NORMS = tuple(
    getattr(nn, f"{kind}Norm{d}d") for kind in ("Batch", "Instance") for d in (1, 2, 3)
)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)

MODULES: Mapping[str, tuple[type[nn.Module], ...]] = {
    "conv": CONVOLUTIONS,
    "linear": (nn.Linear,),
    "norm": (*CHANNEL_NORMS, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm),
    "pool": (*POOLS, nn.Upsample),
    "activation": (
        *DROPOUTS, nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU,
        nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh,
        nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink, nn.Hardshrink, nn.Softshrink,
        nn.Threshold,
    ),
    "pad": tuple(
        getattr(nn, f"{kind}Pad{d}d")
        for kind in ("Zero", "Constant", "Reflection", "Replication")
        for d in (1, 2, 3)
    ),
    "reshape": (nn.Flatten,),
}  # fmt: skip

BINARY = ("add", "sub", "mul", "iadd", "isub", "imul")
"""Elementwise on two tensors, or on one and a number."""
IN_PLACE = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow")
"""The operator module's functions that change their first argument."""
FRESH = ("conv", "depthwise", "linear", "norm", "add", "concat", "pad")
"""Kinds that give a new tensor, unless they work in place; others may give a view of their input."""
MEANS = ("mean", "sum", "amax", "amin")
IDENTITIES = (
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "contiguous",
    "clone",
)
RESHAPES = ("flatten", "view", "reshape", "squeeze", "unsqueeze")

NAMES: Mapping[str, tuple[str, ...]] = {
    "activation": (
        *IDENTITIES, "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish",
        "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "tanh", "softplus", "softsign",
        "logsigmoid", "tanhshrink", "hardshrink", "softshrink", "threshold", "clamp", "clip", "abs",
        "neg", "exp", "square", "sqrt", "pow", "div", "truediv", "itruediv",
    ),
    "add": BINARY,
    "concat": ("cat", "concat", "concatenate"),
    "pad": ("pad",),
    "pool": (
        *MEANS, "interpolate", "getitem",
        *(f"{kind}_pool{d}d"
          for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for d in (1, 2, 3)),
    ),
    "reshape": RESHAPES,
}  # fmt: skip

KIND_OF_NAME = {name: kind for kind, names in NAMES.items() for name in names}


def _functions() -> dict[Callable[..., Any], str]:
    """The functions of these names; `relu_` has the name of `relu`."""
    places = (torch, functional, operator)
    return {
        getattr(place, each): name
        for name in KIND_OF_NAME
        for each in (name, f"{name}_")
        for place in places
        if hasattr(place, each)
    }


FUNCTIONS = _functions()


def operation(node: fx.Node) -> str:
    """The name of the function or method that a node calls, "" if it has none here."""
    if node.op == "call_function":
        return FUNCTIONS.get(node.target, "")  # type: ignore[arg-type]
    name = str(node.target).removesuffix("_") if node.op == "call_method" else ""
    return name if name in KIND_OF_NAME else ""


def kind_of(node: fx.Node, module: nn.Module | None) -> str:
    """The kind of a node, one of `graph.KINDS`.

    Args:
        node: of a traced network.
        module: the module it calls, or None.
    """
    if node.op in ("placeholder", "output"):
        return "input" if node.op == "placeholder" else "output"
    if isinstance(module, CONVOLUTIONS):
        return "depthwise" if is_depthwise(module) else "conv"
    if module is not None:
        found = (kind for kind, types in MODULES.items() if isinstance(module, types))
        return next(found, "other")
    name = operation(node)
    if name in BINARY and len(node.all_input_nodes) == 1:
        return "activation"
    if name == "getitem" and spatial_steps(node) is None:
        return "other"
    return KIND_OF_NAME.get(name, "other")


def is_depthwise(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    """Whether each output channel sees the input channel of its index alone."""
    return layer.groups == layer.in_channels == layer.out_channels > 1


def is_in_place(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node writes its output over a tensor that there was, its first input."""
    if module is not None:
        return bool(getattr(module, "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    name = getattr(node.target, "__name__", "")
    asked = bool(node.kwargs.get("inplace")) or node.kwargs.get("out") is not None
    return asked or name.endswith("_") or name in IN_PLACE


def is_read_elsewhere(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether another node than its only user may read a node's tensor, itself or a view of it."""
    if len(node.users) > 1:
        return True
    module = modules[str(node.target)] if node.op == "call_module" else None
    if kind_of(node, module) in FRESH and not is_in_place(node, module):
        return False
    return any(is_read_elsewhere(each, modules) for each in node.all_input_nodes[:1])


def keeps_zero(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether an activation gives 0 for 0 in evaluation mode, by trying it."""
    if isinstance(module, DROPOUTS) or operation(node) in IDENTITIES:
        return True
    own = () if module is None else tuple(module.parameters())
    zero = own[0].new_zeros(1) if own else torch.zeros(1)
    if module is not None:
        return not module(zero).any()
    args = tuple(zero if isinstance(a, fx.Node) else a for a in node.args)
    options = {k: zero if isinstance(a, fx.Node) else a for k, a in node.kwargs.items()}
    if node.op == "call_method":
        return not getattr(args[0], str(node.target))(*args[1:], **options).any()
    return not node.target(*args, **options).any()  # type: ignore[operator]


def spatial_steps(node: fx.Node) -> tuple[int, ...] | None:
    """The steps of `x[:, :, a:b:s, ...]`, which takes whole channels; None for any other index."""
    index = node.args[1]
    if not isinstance(index, tuple) or index[:2] != (slice(None), slice(None)):
        return None
    rest = index[2:]
    if not all(isinstance(i, slice) for i in rest):
        return None
    steps = [i.step if isinstance(i.step, int) else 1 for i in rest if isinstance(i, slice)]
    return tuple(steps)


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """An argument of a function or method by its position, else by its name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def window(node: fx.Node, module: nn.Module | None, rank: int) -> tuple[tuple[int, ...], ...]:
    """Kernel and stride of a convolution, pooling or strided slice, one number a dimension.

    Args:
        node: of a traced network.
        module: the module it calls, or None.
        rank: spatial dimensions of its input.
    """
    if operation(node) == "getitem":
        return (), spatial_steps(node) or ()
    if module is None:
        is_pool = operation(node).startswith(("max_pool", "avg_pool"))
        kernel = argument(node, 1, "kernel_size", ()) if is_pool else ()
        stride = argument(node, 2, "stride", None) if is_pool else ()
    else:
        kernel, stride = getattr(module, "kernel_size", ()), getattr(module, "stride", ())
    kernel = _each(kernel, rank)
    return kernel, _each(stride, rank) or kernel


def _each(value: Any, rank: int) -> tuple[int, ...]:
    """One number a dimension, of a number or a sequence of them; () of anything else."""
    numbers = (value,) * rank if isinstance(value, int) else value
    is_known = isinstance(numbers, tuple | list) and all(isinstance(n, int) for n in numbers)
    return tuple(numbers) if is_known else ()
