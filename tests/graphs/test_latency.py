"""Measured seconds: of one thread, in evaluation mode, and less for a much smaller network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graph_models import SHAPE, network
from torch import Tensor, nn

from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ModelError
from spatl_ray.graphs.latency import WARM_UP, measure
from spatl_ray.graphs.slim import slim


class Recorder(nn.Module):
    """Notes how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.inner = nn.Dropout()
        self.calls: list[tuple[object, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
        self.calls.append((x.shape, x.dtype, threads, inference, self.inner.training))
        return x


def test_how_it_is_called() -> None:
    module = Recorder()
    module.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (seconds,) = measure([module], SampleSpec((2, 3), 10), 5, 4)
        assert seconds > 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert module.calls == [((5, 2, 3), torch.float64, 1, True, False)] * (WARM_UP + 4)
    assert module.training
    assert module.inner.training


def test_a_much_smaller_network_is_faster() -> None:
    whole = network("vgg11", dtype=torch.float32, width=32)
    ratios = {group.name: 0.1 for group in whole.graph.groups}
    kept = whole.coupling.kept(np.arange(len(whole.coupling.labels)).astype(float), ratios)
    small = slim(whole.graph, whole.coupling, kept)
    seconds = measure([whole.model.module, small], whole.spec, 8, 7)
    assert seconds[1] < seconds[0] / 2


@pytest.mark.parametrize(("batch", "repeats", "text"), [
    (0, 1, "batch must be at least 1, got 0"), (1, 0, "repeats must be at least 1, got 0"),
])  # fmt: skip
def test_numbers_below_one_are_refused(batch: int, repeats: int, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        measure([Recorder()], SampleSpec(SHAPE, 10), batch, repeats)


def test_modules_take_turns() -> None:
    order: list[str] = []
    modules = [Recorder(), Recorder()]
    for name, module in zip("ab", modules, strict=True):
        module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
    assert len(measure(modules, SampleSpec((2, 3), 10), 1, 2)) == 2
    assert order == ["a", "b"] * (WARM_UP + 2)
