"""Pictures of selection: what they show is what the tables hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_runs import small

from analysis.curves import Curve
from analysis.metrics import FLOPS, KEPT, REWARD
from analysis.plots import Drawing, figures, save
from analysis.selection import (
    MOST_PANELS,
    decided_by,
    flops_figure,
    keep_ratio_figure,
    keep_ratios,
    mean_ratios,
    reward_figure,
)
from spatl_ray import run

pytestmark = pytest.mark.integration


def curve(run_id: str, **columns: list[float]) -> Curve:
    rounds = pd.DataFrame({"round": range(len(next(iter(columns.values())))), **columns})
    return Curve(f"run {run_id}", "digits", "#000000", "-", "o", rounds.assign(seed=0), {run_id: 0})


def runs_of(**algorithms: dict[str, Any]) -> pd.DataFrame:
    configs = {run_id: json.dumps({"algorithm": a}) for run_id, a in algorithms.items()}
    return pd.DataFrame({"run_id": configs.keys(), "config": configs.values()})


def layers_of(run_id: str, ratio: str = "inference_keep_ratio") -> pd.DataFrame:
    """As `mean_ratios` gives them: two rounds, layers b and a in the network's order."""
    rows = [
        {
            "run_id": run_id,
            "round": round_,
            "layer": layer,
            "keep_ratio": 0.5,
            "inference_keep_ratio": np.nan,
            ratio: 0.2 + 0.1 * round_ + 0.3 * (layer == "a"),
        }
        for round_ in (0, 1)
        for layer in ("b", "a")
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("ratio", ["inference_keep_ratio", "keep_ratio"])
def test_ratios_are_of_the_curves_runs_in_the_networks_order(ratio: str) -> None:
    table = keep_ratios(
        curve("x", density=[1.0]), pd.concat([layers_of("x", ratio), layers_of("y")])
    )
    assert table.index.tolist() == ["b", "a"]
    assert table.columns.tolist() == [0, 1]
    np.testing.assert_allclose(table, [[0.2, 0.3], [0.5, 0.6]])


def test_the_heat_map_has_a_panel_a_run_and_says_what_it_leaves_out() -> None:
    names = [f"r{i}" for i in range(MOST_PANELS + 2)]
    layers = pd.concat([layers_of(name) for name in names])
    runs = runs_of(**{name: {"criterion": "l1"} for name in names})
    figure = keep_ratio_figure([curve(name, density=[1.0]) for name in names], layers, runs)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == MOST_PANELS
    np.testing.assert_allclose(images[0].get_array(), [[0.2, 0.3], [0.5, 0.6]])
    assert "2 more methods are not shown" in figure.get_suptitle()
    assert figure.axes[0].get_title() == "digits\nrun r0\nequal ratios, l1"


@pytest.mark.parametrize("config", ["{}", '{"algorithm": "mine"}', '{"algorithm": null}'])
def test_a_config_without_the_section_algorithm_is_drawn(config: str) -> None:
    runs = pd.DataFrame({"run_id": ["x"], "config": [config]})
    figure = keep_ratio_figure([curve("x", density=[1.0])], layers_of("x"), runs)
    assert figure.axes[0].get_title() == "digits\nrun x\nequal ratios, criterion not known"


def test_accuracy_against_flops_is_a_line_a_criterion_and_a_point_a_setting() -> None:
    inference = [{"inference": {"criterion": "l2", "flops": budget}} for budget in (0.8, 0.4)]
    runs = runs_of(a=inference[0], b=inference[0], c=inference[1], d={"agent": {"budget": 0.5}})
    drawn = [
        curve("a", **{FLOPS: [0.9, 0.8], KEPT: [0.1, 0.6]}),
        curve("b", **{FLOPS: [0.8, np.nan], KEPT: [0.4, np.nan]}),
        curve("c", **{FLOPS: [0.4], KEPT: [0.2]}),
        curve("d", **{FLOPS: [0.5], KEPT: [0.7]}),
    ]
    (axes,) = flops_figure(drawn, runs).axes
    handles, labels = axes.get_legend_handles_labels()
    lines = {
        label: handle.lines[0].get_xydata() for label, handle in zip(labels, handles, strict=True)
    }
    assert labels == ["agent, l2", "equal ratios, l2"]
    np.testing.assert_allclose(lines["equal ratios, l2"], [[0.4, 0.2], [0.8, 0.5]])
    np.testing.assert_allclose(lines["agent, l2"], [[0.5, 0.7]])


def test_rewards_are_those_of_rounds_that_tuned() -> None:
    (axes,) = reward_figure([curve("a", **{REWARD: [0.3, 0.5, np.nan]})]).axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 0.3], [1, 0.5]])


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        ({"criterion": "update", "agent": None, "inference": None}, "equal ratios, update"),
        ({"criterion": "update", "allocation": "global"}, "over all layers, update"),
        ({"criterion": "update", "inference": {"criterion": "l1"}}, "equal ratios, l1"),
        ({"agent": {"budget": 0.5}, "inference": {"criterion": "taylor"}}, "agent, taylor"),
        ({}, "equal ratios, criterion not known"),
    ],
)
def test_what_decides_has_a_name(algorithm: dict[str, Any], name: str) -> None:
    assert decided_by(algorithm) == name


def test_a_run_with_an_agent_has_all_pictures_and_one_without_selection_none(
    tmp_path: Path,
) -> None:
    chosen = {"accuracy_flops.png", "keep_ratios.png", "selection_reward.png"}
    run(small(tmp_path, "fedavg", rounds=1))
    assert figures(Drawing(tmp_path), ["flops", "keep", "reward"]) == {}
    run(small(tmp_path, {"name": "spatl", "agent": {"episodes": 2}}, rounds=1))
    means = mean_ratios(tmp_path)
    whole = pd.read_parquet(tmp_path / "layers")
    by = whole.groupby(["round", "layer"], sort=False)["keep_ratio"].mean()
    assert means["layer"].tolist() == [layer for _, layer in by.index]
    np.testing.assert_allclose(means["keep_ratio"], by)
    _, paths = save(Drawing(tmp_path), tmp_path / "out", what=["flops", "keep", "reward"])
    assert chosen <= {path.name for path in paths}
    assert all((tmp_path / "out" / name).stat().st_size > 5000 for name in chosen)
