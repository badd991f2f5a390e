"""The traced graph: what its nodes are, what they cost, and what cannot be traced."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from flat_models import split_model
from graph_models import NETWORKS, Pooled, Written, case, network, own
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ModelError
from spatl_ray.graphs.graph import KINDS, Graph, Node
from spatl_ray.graphs.trace import trace
from spatl_ray.models.coupling import channel_groups
from spatl_ray.models.split import ENCODER, PREDICTOR, SplitModel

CIFAR = (3, 32, 32)


def node_of(graph: Graph, module: str) -> Node:
    (node,) = (n for n in graph.nodes if n.module == module)
    return node


def graph_of(name: str, shape: tuple[int, ...] = CIFAR, **options: Any) -> Graph:
    split, spec = split_model(name, shape, **options), SampleSpec(shape, 10)
    return trace(split, spec, channel_groups(split, spec, torch.float32)[0])


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_a_residual_network_by_hand(name: str, blocks: int) -> None:
    """Each of 3n blocks: two convolutions with norms, two ReLUs, one sum; option A twice."""
    graph = graph_of(name)
    assert Counter(n.kind for n in graph.nodes) == {
        "input": 1, "output": 1, "linear": 1, "pad": 2, "pool": 2 + 1, "add": 3 * blocks,
        "conv": 6 * blocks + 1, "norm": 6 * blocks + 1, "activation": 6 * blocks + 1,
    }  # fmt: skip
    multiplications = {"resnet20": 40_551_040, "resnet56": 125_485_696}[name]
    assert sum(n.flops for n in graph.nodes) == 2 * multiplications
    assert sum(n.parameters for n in graph.nodes) == {3: 269_722, 9: 853_018}[blocks]


def test_lenet_node_by_node() -> None:
    graph = graph_of("lenet", (1, 28, 28))
    seen = [(n.kind, n.shape, n.kernel, n.stride, n.flops, n.parameters) for n in graph.nodes]
    none: tuple[int, ...] = ()
    assert seen == [
        ("input", (1, 28, 28), none, none, 0, 0),
        ("conv", (6, 24, 24), (5, 5), (1, 1), 2 * 576 * 25 * 6, 156),
        ("pool", (6, 12, 12), (2, 2), (2, 2), 0, 0),
        ("activation", (6, 12, 12), none, none, 0, 0),
        ("conv", (16, 8, 8), (5, 5), (1, 1), 2 * 64 * 25 * 6 * 16, 2416),
        ("pool", (16, 4, 4), (2, 2), (2, 2), 0, 0),
        ("activation", (16, 4, 4), none, none, 0, 0),
        ("reshape", (256,), none, none, 0, 0),
        ("linear", (120,), none, none, 2 * 256 * 120, 257 * 120),
        ("activation", (120,), none, none, 0, 0),
        ("linear", (84,), none, none, 2 * 120 * 84, 121 * 84),
        ("activation", (84,), none, none, 0, 0),
        ("linear", (10,), none, none, 2 * 84 * 10, 850),
        ("output", (10,), none, none, 0, 0),
    ]
    assert [n.part for n in graph.nodes] == [ENCODER] * 7 + [PREDICTOR] * 7
    assert [n.inputs for n in graph.nodes] == [(), *((i,) for i in range(13))]


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_the_laws_of_every_graph(name: str, options: dict[str, Any]) -> None:
    traced = case(name, options)
    graph, module = traced.graph, traced.model.module
    assert {n.kind for n in graph.nodes} <= set(KINDS)
    assert all(i < index for index, n in enumerate(graph.nodes) for i in n.inputs)
    groups = {n.module: n.group for n in graph.nodes if n.group >= 0}
    assert groups == {g.name: i for i, g in enumerate(graph.groups)}
    assert all(n.shape[0] == graph.groups[n.group].channels for n in graph.nodes if n.group >= 0)
    assert [n.name for n in graph.nodes] == [n.name for n in graph.module.graph.nodes]
    assert sum(n.parameters for n in graph.nodes) == sum(p.numel() for p in module.parameters())
    x = traced.samples(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        outputs = module(x)
    assert torch.equal(graph.module(x), outputs)
    assert sum(n.flops for n in graph.nodes) == counter.get_total_flops()


@pytest.mark.parametrize(
    "name",
    ["squeezenet1_1", *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("resnet18", "mobilenet_v3_small", "vgg11_bn", "densenet121", "googlenet",
                     "shufflenet_v2_x0_5", "efficientnet_b0", "regnet_y_400mf"))],
)  # fmt: skip
def test_torchvisions_networks(name: str) -> None:
    split, spec = split_model(f"torchvision.{name}", CIFAR), SampleSpec(CIFAR, 10)
    graph = trace(split, spec, channel_groups(split, spec, torch.float32)[0])
    x = torch.randn(2, *CIFAR, generator=torch.Generator().manual_seed(0))
    split.module.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        outputs = split.module(x)
    assert torch.equal(graph.module(x), outputs)
    assert 2 * sum(n.flops for n in graph.nodes) == counter.get_total_flops()
    parameters = sum(p.numel() for p in split.module.parameters())
    assert sum(n.parameters for n in graph.nodes) == parameters
    assert {n.group for n in graph.nodes} == set(range(-1, len(graph.groups)))


def test_depthwise_products_and_padding_have_their_kinds() -> None:
    graph = case("mobile", {}).graph
    kinds = Counter(n.kind for n in graph.nodes)
    assert (kinds["depthwise"], kinds["add"], kinds["conv"]) == (1, 2, 5)
    assert node_of(graph, "encoder.depthwise.0").flops == 2 * 64 * 9 * 9
    padded = [n for n in case("resnet20", {"width": 4}).graph.nodes if n.kind == "pad"]
    assert [n.shape for n in padded] == [(8, 8, 8), (16, 4, 4)]
    slices = [n for n in graph_of("resnet20").nodes if n.kind == "pool" and len(n.shape) == 3]
    assert [(n.shape, n.stride) for n in slices] == [((16, 16, 16), (2, 2)), ((32, 8, 8), (2, 2))]


def test_concatenations_list_what_they_read() -> None:
    graph = case("dense", {}).graph
    first, second = (n for n in graph.nodes if n.kind == "concat")
    assert (first.shape, second.shape) == ((7, 16, 16), (19, 16, 16))
    assert (len(first.inputs), len(second.inputs)) == (2, 2)


def test_an_lstm_is_an_operation_of_its_own() -> None:
    graph = network("char_lstm", (6,), token_ids=10, hidden=4, embedding=3).graph
    lstm = node_of(graph, "encoder.lstm")
    assert (lstm.kind, lstm.shape, lstm.group) == ("other", (6, 4), -1)
    assert lstm.flops == 2 * 6 * 4 * 4 * (3 + 4 + 4 + 4)
    assert node_of(graph, "encoder.embedding").flops == 0
    assert node_of(graph, "predictor").flops == 2 * 4 * 10


def test_operations_of_functions_and_of_transposed_convolutions() -> None:
    """On 16x16: a functional 3x3 to 2 channels on 14x14; transposed 2x2 of 2 to 3 in 15x15; two uses."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.spread(functional.conv2d(x, self.kernel))
        return functional.relu(self.twice(self.twice(x)))

    class WithKernel(Written):
        def __init__(self) -> None:
            parts = {"spread": nn.ConvTranspose2d(2, 3, 2), "twice": nn.Conv2d(3, 3, 1)}
            super().__init__(forward, parts)
            self.kernel = nn.Parameter(torch.ones(2, 1, 3, 3))

    graph = own(WithKernel(), 3).graph
    assert [n.flops for n in graph.nodes if n.flops] == [
        2 * 196 * 9 * 2, 2 * 196 * 4 * 6, 2 * 225 * 9, 2 * 225 * 9, 2 * 30,
    ]  # fmt: skip
    assert sum(n.parameters for n in graph.nodes) == 18 + 27 + 12 + 40


PRODUCTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "attention": lambda self, x: (x.flatten(2) @ x.flatten(2).transpose(1, 2)) @ x.flatten(2),
    "batches": lambda self, x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)),
    "sums": lambda self, x: torch.einsum("nchw,ndhw->ncd", x, x),
    "transposed": lambda self, x: functional.conv_transpose2d(x, self.other.weight).flatten(2),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_operations_are_those_that_torch_counts(name: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return PRODUCTS[name](self, self.conv(x)).mean(2)

    traced = own(forward, 4, conv=nn.Conv2d(1, 4, 3), other=nn.Conv2d(4, 4, 3))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        traced.model.module(traced.samples(1))
    assert sum(n.flops for n in traced.graph.nodes) == counter.get_total_flops()


def test_tracing_leaves_the_module_as_it_was() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return functional.dropout(self.conv(x), 0.5, self.training) + torch.arange(16.0)

    module = Pooled(Written(forward, {"conv": nn.Conv2d(1, 4, 1), "norm": nn.BatchNorm2d(4)}), 4)
    split, spec = SplitModel(module, {"predictor": PREDICTOR}), SampleSpec((1, 16, 16), 10)
    groups, _ = channel_groups(split, spec, torch.float32)
    module.train()
    module.encoder.norm.eval()
    modes = [m.training for m in module.modules()]
    attributes = {name: set(vars(m)) for name, m in module.named_modules()}
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random = torch.get_rng_state()
    graph = trace(split, spec, groups)
    assert [m.training for m in module.modules()] == modes
    assert {name: set(vars(m)) for name, m in module.named_modules()} == attributes
    assert all(torch.equal(tensor, state[n]) for n, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(graph.module(x), module.eval()(x))


def test_conditions_on_sizes_and_dtypes_are_decided() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.shape[1] != 1 or x.size(-1) % 2 or not x.is_floating_point():
            raise AssertionError
        return functional.relu(self.conv(x)) if x.dim() == 4 else x

    traced = own(forward, 4, conv=nn.Conv2d(1, 4, 3))
    assert not [n for n in traced.graph.nodes if n.kind == "other"]


def test_defaults_of_the_forward_pass_stay() -> None:
    class Optional(Pooled):
        def forward(self, x: Tensor, mask: Tensor | None = None, *more: Tensor) -> Tensor:
            return super().forward(x if mask is None else x * mask)

    module = Optional(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), 4)
    split, spec = SplitModel(module, {"predictor": PREDICTOR}), SampleSpec((1, 16, 16), 10)
    graph = trace(split, spec, channel_groups(split, spec, torch.float32)[0])
    assert [n.kind for n in graph.nodes].count("input") == 1


def test_what_changes_a_tensor_in_place_is_kept() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.conv(x)
        functional.relu(x, inplace=True)
        x.flatten(2).add_(0.5)
        x.exp()
        return x

    traced = own(forward, 4, conv=nn.Conv2d(1, 4, 3))
    x = traced.samples(2)
    with torch.no_grad():
        assert torch.equal(traced.graph.module(x), traced.model.module(x))
    assert "exp" not in [n.name for n in traced.graph.nodes]


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"])
def test_statements_change_a_tensor_that_others_read(name: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = getattr(operator, name)(x, 3)
        return self.again(x) + y

    traced = own(forward, 4, conv=nn.Conv2d(1, 4, 3), again=nn.Conv2d(4, 4, 1))
    x = traced.samples(2)
    with torch.no_grad():
        assert torch.equal(traced.graph.module(x), traced.model.module(x))
    assert traced.labels("encoder.conv") == [-1] * 4


def test_statements_leave_sizes_alone() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.conv(x)
        samples = doubled = x.size(0)
        doubled *= 2
        return torch.cat([x, x]).view(doubled, 4, -1, 1)[:samples]

    traced = own(forward, 4, conv=nn.Conv2d(1, 4, 3))
    x = traced.samples(3)
    with torch.no_grad():
        assert torch.equal(traced.graph.module(x), traced.model.module(x))


def test_layers_without_a_group_have_none() -> None:
    split, spec = split_model("lenet"), SampleSpec((1, 16, 16), 10)
    groups, _ = channel_groups(split, spec, torch.float32)
    graph = trace(split, spec, (replace(groups[1], offset=0),))
    assert [n.module for n in graph.nodes if n.group == 0] == ["encoder.3"]


def on_values(self: Any, x: Tensor) -> Tensor:
    return self.inner(x) if x.sum() > 0 else x


def on_length(self: Any, x: Tensor) -> Tensor:
    return torch.stack([self.inner(x[i]) for i in range(len(x))])


def on_item(self: Any, x: Tensor) -> Tensor:
    return self.inner(x) if x.mean().item() == 0 else x


@pytest.mark.parametrize(
    ("forward", "reason"),
    [(on_values, "TraceError"), (on_length, "RuntimeError"), (on_item, "TraceError")],
)
def test_what_cannot_be_traced_is_named(forward: Callable[..., Tensor], reason: str) -> None:
    inside = Written(forward, {"inner": nn.Identity()})
    module = Pooled(nn.Sequential(nn.Conv2d(1, 4, 3), inside), 4)
    split, spec = SplitModel(module, {"predictor": PREDICTOR}), SampleSpec((1, 16, 16), 10)
    text = (
        r"^the network must have a graph that is the same for all samples, got encoder\.1 \(Written\), "
        rf"which cannot be traced: {reason}: .+ Write it without if, .* or choose a selection"
    )
    with pytest.raises(ModelError, match=text):
        trace(split, spec, ())


def test_the_network_itself_is_named_if_it_cannot_be_traced() -> None:
    class Root(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(-x if x.any() else x)

    module = Root(nn.Conv2d(1, 4, 3), 4).train()
    split, spec = SplitModel(module, {"predictor": PREDICTOR}), SampleSpec((1, 16, 16), 10)
    with pytest.raises(ModelError, match=r"got its own forward pass \(Root\), which cannot be"):
        trace(split, spec, ())
    assert module.training
    assert module.encoder.training


@pytest.mark.parametrize("name", ["resnet20", "vgg11"])
def test_a_network_is_traced_on_its_own_device(name: str) -> None:
    """One without values stands for a GPU."""
    spec = SampleSpec((1, 32, 32), 10)
    split = split_model(name, spec.shape)
    groups, _ = channel_groups(split, spec, torch.float32)
    expected = trace(split, spec, groups)
    split.module.to("meta")
    assert trace(split, spec, groups).nodes == expected.nodes
