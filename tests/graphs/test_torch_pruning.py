"""The smaller network is the one that torch-pruning cuts out, another's work, where that works.

It follows what autograd noted of a forward pass instead of a traced graph. It cuts out something else where a
shortcut pads channels, as in the 269,722-parameter ResNet-20, and where a tensor is concatenated twice.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning
from graph_models import Traced, case, network, some_bits

from spatl_ray.arrays import Bits
from spatl_ray.graphs.slim import slim

CUTS = {
    torch.nn.Conv2d: torch_pruning.prune_conv_out_channels,
    torch.nn.Linear: torch_pruning.prune_linear_out_channels,
}


def cut_out(own: Traced, bits: Bits) -> torch.nn.Module:
    """What torch-pruning leaves of the network without the channels that a closed mask removes."""
    module = copy.deepcopy(own.model.module).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(True)  # it looks at gradients' functions
    graph = torch_pruning.DependencyGraph().build_dependency(module, own.samples(2))
    for group in own.graph.groups:
        layer = module.get_submodule(group.name)
        kept = bits[group.offset : group.offset + group.channels]
        if layer.weight.shape[0] == group.channels:  # else cut with one that it is tied to
            gone = np.flatnonzero(~kept).tolist()
            if gone:
                graph.get_pruning_group(layer, CUTS[type(layer)], gone).prune()
    return module


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lenet", {"norm": "batch"}),
        ("cnn", {"width": 4, "hidden": 8}),
        ("vgg11", {"width": 4, "norm": "batch"}),
        ("mobile", {}),
        pytest.param("torchvision.resnet18", {}, marks=pytest.mark.slow),
    ],
)
def test_it_is_what_torch_pruning_cuts_out(name: str, options: dict[str, Any]) -> None:
    own = network(name, (3, 32, 32)) if "." in name else case(name, options)
    bits = own.coupling.closed(some_bits(own, 1))
    assert not bits.all()
    small, other = slim(own.graph, own.coupling, bits), cut_out(own, bits)
    sizes = {key: tensor.shape for key, tensor in small.state_dict().items()}
    assert {key: tensor.shape for key, tensor in other.state_dict().items()} == sizes
    x = own.samples(3)
    with torch.no_grad():
        assert torch.allclose(small(x), other(x), rtol=0, atol=1e-10)
