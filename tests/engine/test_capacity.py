"""How many workers nodes hold, of equal and of unequal size, and where each one lies."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.config import Engine
from spatl_ray.engine.capacity import (
    GPU_MEMORY,
    Seat,
    Shares,
    count_workers,
    kind_of,
    seats,
    share_of,
)
from spatl_ray.errors import ConfigError

SMALL = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:T4": 1.0}
LARGE = {"CPU": 8.0, "GPU": 4.0, "accelerator_type:A100": 1.0}
AUTO = Shares(Engine(actors_per_gpu="auto"), {kind_of(SMALL): 1, kind_of(LARGE): 3})


@pytest.mark.parametrize(
    ("engine", "nodes", "workers"),
    [
        (Engine(), [{"CPU": 4.0}], 4),
        (Engine(workers=3), [{"CPU": 4.0}], 3),
        (Engine(num_cpus=2), [{"CPU": 3.0}, {"CPU": 5.0}], 3),  # not the 8 / 2 of both
        (Engine(num_gpus=0.25), [{"CPU": 16.0, "GPU": 2.0}], 8),
        (Engine(num_gpus=0.4), [{"CPU": 16.0, "GPU": 2.0}], 4),  # a fraction lies on one GPU
        (Engine(num_gpus=0.4), [{"CPU": 9.0, "GPU": 1.0}] * 2, 4),
        (Engine(num_gpus=2), [{"CPU": 9.0, "GPU": 3.0}] * 2, 2),
        (Engine(num_cpus=0.5, num_gpus=0.1), [{"CPU": 4.0, "GPU": 1.0}], 8),
        (Engine(actors_per_gpu=3), [{"CPU": 9.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 4.0}], 5),
        (Engine(actors_per_gpu=7, num_cpus=0), [{"GPU": 4.0}], 28),
    ],
)
def test_workers_fill_the_nodes(
    engine: Engine, nodes: list[dict[str, float]], workers: int
) -> None:
    assert count_workers(Shares(engine, {}), nodes) == workers


def test_what_does_not_fit_names_what_there_is() -> None:
    told = r"\(18 CPU, 2 GPU on 2 nodes\): with num_cpus=1 and num_gpus=0\.4 at most 4 do, got 5"
    with pytest.raises(ConfigError, match=told):
        count_workers(Shares(Engine(num_gpus=0.4, workers=5), {}), [{"CPU": 9.0, "GPU": 1.0}] * 2)


@given(st.integers(1, 10_000))
def test_as_many_shares_as_actors_fit_a_gpu(actors: int) -> None:
    """In Ray's ten-thousandths, which it does not round up."""
    share = round(share_of(actors) * 10_000)
    assert share >= 1
    assert actors * share <= 10_000
    assert (actors + 1) * share > 10_000 or actors > 99


def test_kinds_of_gpus() -> None:
    assert kind_of(SMALL) != kind_of(LARGE)
    assert kind_of({**SMALL, "CPU": 2.0, "node:10.0.0.7": 1.0}) == kind_of(SMALL)
    sizes = [{"GPU": 1.0, GPU_MEMORY: size} for size in (8e9, 16e9)]
    assert len({kind_of(node) for node in (*sizes, {"GPU": 1.0})}) == 3


def test_measured_shares_differ_by_kind() -> None:
    """The large node has CPUs for eight of its twelve; what was not measured holds nobody."""
    assert [AUTO.held(node) for node in (SMALL, LARGE, {"CPU": 9.0, "GPU": 1.0})] == [1, 8, 0]
    assert count_workers(AUTO, [SMALL, LARGE]) == 9


def test_each_gpu_has_one_before_any_has_two() -> None:
    nodes = {"small": SMALL, "large": LARGE, "none": {"CPU": 9.0}}
    found = seats(AUTO, nodes, 9)
    assert Counter(seat.node for seat in found) == {"large": 8, "small": 1}
    assert {seat.node: seat.gpus for seat in found} == {"large": 0.3333, "small": 1.0}
    assert found[:5] == [*[Seat("large", 0.3333)] * 4, Seat("small", 1.0)]
    assert seats(AUTO, nodes, 2) == found[:2]
