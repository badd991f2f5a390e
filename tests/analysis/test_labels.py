"""What methods are called: unique in a setting, and by what sets them apart."""

from __future__ import annotations

import json
from collections.abc import Callable

import pandas as pd

from analysis.curves import curves

MakeFrames = Callable[..., tuple[pd.DataFrame, pd.DataFrame]]


def test_labels_say_in_which_options_methods_differ(make_frames: MakeFrames) -> None:
    once = [(0.5, 0.5)]
    spatl: dict[str, object] = {"name": "spatl", "keep": 0.5, "inference": {"keep": 1}}
    configs = {
        "a": {"algorithm": spatl, "training": {"lr": 0.1}, "engine": {"workers": 2}},
        "b": {"algorithm": spatl | {"keep": 0.25}, "training": {"lr": 0.1}},
        "c": {"algorithm": spatl | {"inference": None}, "training": {"lr": 0.1}},
        "d": {"algorithm": {"name": "my_pkg.module:Mine"}, "training": {"lr": 9}},
    }
    runs = {
        run_id: (
            {"algorithm": config["algorithm"]["name"], "config": json.dumps(config)},
            once,
            1,
            1,
        )
        for run_id, config in configs.items()
    }
    assert [c.label for c in curves(*make_frames(runs))] == [
        "Mine",
        "SPATL",
        "SPATL, keep 0.25",
        "SPATL, without inference",
    ]


def test_labels_leave_out_what_differs_between_settings_only(make_frames: MakeFrames) -> None:
    """Two sizes of a federation have other numbers of samples; one of them has a second method, too."""
    once = [(0.5, 0.5)]

    def run(
        clients: int, lr: float
    ) -> tuple[dict[str, object], list[tuple[float, float]], int, int]:
        config = json.dumps({"data": {"samples": 200 * clients}, "training": {"lr": lr}})
        return {"clients": clients, "config": config}, once, 1, 1

    runs = {"a": run(10, 0.1), "b": run(20, 0.1)}
    assert [c.label for c in curves(*make_frames(runs))] == ["FedAvg", "FedAvg"]
    labels = [c.label for c in curves(*make_frames(runs | {"c": run(20, 0.2)}))]
    assert sorted(labels) == ["FedAvg, lr 0.1", "FedAvg, lr 0.1", "FedAvg, lr 0.2"]


def test_a_section_that_one_method_lacks_is_one_option(make_frames: MakeFrames) -> None:
    """However many settings each is in."""
    once = [(0.5, 0.5)]

    def run(
        clients: int, finetune: object
    ) -> tuple[dict[str, object], list[tuple[float, float]], int, int]:
        config = json.dumps(
            {"evaluation": {"every": 1} | ({"finetune": finetune} if finetune else {})}
        )
        return {"clients": clients, "config": config}, once, 1, 1

    tuned = {"epochs": 1, "lr": None}
    runs = {"a": run(10, None), "b": run(20, None), "c": run(30, None), "d": run(20, tuned)}
    without, with_ = "FedAvg, without finetune", "FedAvg, with finetune"
    assert sorted(c.label for c in curves(*make_frames(runs))) == [with_, *[without] * 3]
    runs["e"] = run(20, tuned | {"epochs": 2})
    found = sorted({c.label for c in curves(*make_frames(runs))})
    assert found == ["FedAvg, epochs 1", "FedAvg, epochs 2", without]


def test_methods_with_many_options_are_called_by_their_trial_or_number(
    make_frames: MakeFrames,
) -> None:
    def config(value: int) -> str:
        return json.dumps({"algorithm": {f"o{i}": value for i in range(6)}})

    runs = {
        "a": ({"config": config(1)}, [(0.5, 0.5)], 1, 1),
        "b": ({"config": config(2), "trial_id": "t_7"}, [(0.5, 0.5)], 1, 1),
    }
    assert [c.label for c in curves(*make_frames(runs))] == ["FedAvg, no. 1", "FedAvg, trial t_7"]
    # Of two searches in one folder, each has a t_7.
    runs["b"][0]["sweep_id"] = "night"
    trial = {"config": config(3), "trial_id": "t_7", "sweep_id": "day"}
    found = [c.label for c in curves(*make_frames(runs | {"c": (trial, [(0.5, 0.5)], 1, 1)}))]
    assert found == ["FedAvg, no. 1", "FedAvg, trial t_7 of day", "FedAvg, trial t_7 of night"]


def test_methods_of_a_setting_that_would_be_called_alike_are_numbered(
    make_frames: MakeFrames,
) -> None:
    """The clones of a trial; and a section that one config lacks and another has as null."""

    def config(value: int) -> str:
        return json.dumps({"algorithm": {f"o{i}": value for i in range(6)}})

    once = [(0.5, 0.5)]
    runs = {n: ({"config": config(i), "trial_id": "t"}, once, 1, 1) for i, n in enumerate("ab")}
    found = sorted(c.label for c in curves(*make_frames(runs)))
    assert found == ["FedAvg, trial t (1)", "FedAvg, trial t (2)"]


def test_a_section_of_the_whole_config_is_one_option(make_frames: MakeFrames) -> None:
    attack = {"name": "sign_flip", "share": 0.2}
    runs = {
        name: ({"config": json.dumps(config)}, [(0.5, 0.5)], 1, 1)
        for name, config in (("a", {"attack": attack}), ("b", {"attack": None}))
    }
    found = sorted(c.label for c in curves(*make_frames(runs)))
    assert found == ["FedAvg, with attack", "FedAvg, without attack"]
