"""Batch norm's statistics become those of the samples, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spatl_ray.training.recalibrate import recalibrate


def network(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)
    )


@pytest.fixture
def x() -> Tensor:
    return 3 + 2 * torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def per_channel(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance."""
    flat = values.transpose(0, 1).flatten(1)
    return flat.mean(dim=1), flat.var(dim=1)


def test_statistics_are_those_of_the_layers_inputs(x: Tensor) -> None:
    net = network(nn.BatchNorm2d(4, momentum=None))
    recalibrate(net, x)
    with torch.no_grad():
        first = net[0](x)
        mean, variance = per_channel(first)
        assert torch.allclose(net[1].running_mean, mean, atol=1e-5)
        assert torch.allclose(net[1].running_var, variance, rtol=1e-5)
        # The second layer sees what comes out of the first with the samples' own statistics.
        own = (first - mean[:, None, None]) / (first.var((0, 2, 3), correction=0) + 1e-5).sqrt()[
            :, None, None
        ]
        mean, variance = per_channel(net[4](own.relu()))
    assert torch.allclose(net[5].running_mean, mean, atol=1e-5)
    assert torch.allclose(net[5].running_var, variance, rtol=1e-4)


def test_nothing_else_changes(x: Tensor) -> None:
    net = network(nn.BatchNorm2d(4, momentum=None)).train()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    recalibrate(net, x)
    assert not any(module.training for module in net.modules())
    assert [net[1].momentum, net[5].momentum] == [None, 0.1]
    assert all(torch.equal(before[name], p) for name, p in net.named_parameters())
    assert all(p.grad is None for p in net.parameters())


def test_the_same_again_whatever_was_there_before(x: Tensor) -> None:
    net = network(nn.BatchNorm2d(4))
    recalibrate(net, x)
    first = {name: b.clone() for name, b in net.named_buffers() if b.is_floating_point()}
    net(100 * x)
    recalibrate(net, x)
    assert all(torch.equal(b, dict(net.named_buffers())[name]) for name, b in first.items())


@pytest.mark.parametrize("samples", [0, 1])
def test_too_few_samples_leave_the_statistics(x: Tensor, samples: int) -> None:
    net = network(nn.BatchNorm2d(4)).train()
    recalibrate(net, x[:samples])
    assert torch.equal(net[1].running_mean, torch.zeros(4))
    assert not net.training


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False)])
def test_layers_without_running_statistics_stay(x: Tensor, norm: nn.Module) -> None:
    net = network(norm)
    recalibrate(net, x)
    assert not any(norm.buffers())
    assert not torch.equal(net[5].running_mean, torch.zeros(3))


def test_a_failure_leaves_the_layers_as_they_were() -> None:
    net = network(nn.BatchNorm2d(4))
    with pytest.raises(RuntimeError):
        recalibrate(net, torch.zeros(4, 2, 8, 8))
    assert net[1].momentum == 0.1
    assert not any(module.training for module in net.modules())
