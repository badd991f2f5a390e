"""What a run reserves, and how many fit."""

from __future__ import annotations

from typing import Any

import pytest

from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError, EngineError
from spatl_ray.experiments import experiment_from
from tune.resources import at_once, bundles, cluster
from tune.study import as_trial


def with_engine(**engine: Any) -> Experiment:
    return experiment_from({"engine": engine})


SERIAL = {"backend": "serial"}
RAY = {"backend": "ray", "workers": 3}


@pytest.mark.parametrize(
    ("engine", "wanted"),
    [
        (SERIAL, [{"CPU": 1.0}]),
        (SERIAL | {"num_cpus": 0.5, "num_gpus": 0.25}, [{"CPU": 0.5, "GPU": 0.25}]),
        (SERIAL | {"num_cpus": 0, "num_gpus": 0.5}, [{"GPU": 0.5}]),
        (RAY, [{}, {"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 1.0}]),
        (SERIAL | {"actors_per_gpu": 3}, [{"CPU": 1.0, "GPU": 0.3333}]),
        (RAY | {"workers": 1, "num_gpus": 0.1}, [{}, {"CPU": 1.0, "GPU": 0.1}]),
    ],
)
def test_a_bundle_a_process(engine: dict[str, Any], wanted: list[dict[str, float]]) -> None:
    assert bundles(with_engine(**engine)) == wanted


def test_a_run_that_takes_nothing_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"engine\.num_cpus must be above 0 in a search or a sweep"
    ):
        bundles(with_engine(**SERIAL, num_cpus=0))


def test_what_is_measured_later_cannot_be_reserved() -> None:
    with pytest.raises(
        ConfigError, match=r"actors_per_gpu must be a number in a search or a sweep"
    ):
        bundles(with_engine(**RAY, actors_per_gpu="auto"))


@pytest.mark.parametrize(
    ("engine", "nodes", "count"),
    [
        (SERIAL, [{"CPU": 2.0}], 2),
        (SERIAL | {"num_gpus": 0.25}, [{"CPU": 8.0, "GPU": 1.0}], 4),
        (SERIAL | {"num_gpus": 0.1, "num_cpus": 0.1}, [{"CPU": 8.0, "GPU": 1.0}], 10),
        (SERIAL | {"num_gpus": 0.25}, [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 9.0}], 2),
        (SERIAL | {"num_cpus": 3}, [{"CPU": 4.0}, {"CPU": 5.0}], 2),  # not the 9 // 3 of both
        (RAY, [{"CPU": 4.0}, {"CPU": 2.0}], 2),
        (RAY | {"num_gpus": 0.5}, [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}], 1),
    ],
)
def test_as_many_at_once_as_the_nodes_hold(
    engine: dict[str, Any], nodes: list[dict[str, float]], count: int
) -> None:
    assert at_once(with_engine(**engine), nodes) == count


@pytest.mark.parametrize(
    ("engine", "nodes"),
    [
        (SERIAL | {"num_gpus": 0.5}, [{"CPU": 2.0}]),
        (SERIAL | {"num_cpus": 3}, [{"CPU": 2.0}, {"CPU": 2.0}]),
        (RAY, [{"CPU": 2.0}]),
    ],
)
def test_a_run_that_fits_nowhere_is_refused(
    engine: dict[str, Any], nodes: list[dict[str, float]]
) -> None:
    with pytest.raises(EngineError, match="a run must fit into the cluster: it takes"):
        at_once(with_engine(**engine), nodes)


def test_a_trial_through_ray_has_as_many_workers_as_are_reserved() -> None:
    raw = {"engine": {"backend": "ray"}}
    trial = as_trial(experiment_from(raw), raw)
    assert trial.engine.workers == len(bundles(trial)) - 1 == 1
    raw = {"engine": RAY}
    assert as_trial(experiment_from(raw), raw).engine.workers == 3


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_where_nobody_answers_is_refused_at_once(address: str) -> None:
    with (
        pytest.raises(EngineError, match=f"--address '{address}' cannot be reached"),
        cluster(address),
    ):
        pass
