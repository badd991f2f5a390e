"""Bars, heat maps, distributions and fronts show what the frames hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.text import Text

from analysis.bars import MOST_BARS, phases, phases_figure, target_figure
from analysis.curves import curves
from analysis.formats import spread
from analysis.lines import rounds_figure
from analysis.load import LoadError
from analysis.metrics import OWN, VALIDATION
from analysis.pareto import front, front_table, pareto_figure, trials
from analysis.selection import flops_figure, keep_ratio_figure, reward_figure
from analysis.spreads import clients_figure, partition_figure, partitions
from analysis.summary import NOT_REACHED

pytestmark = pytest.mark.integration

MakeFrames = Callable[..., tuple[pd.DataFrame, pd.DataFrame]]
MB = 10**6
VALUES = [(0.5, 0.5)]


def test_bars_to_the_target_are_sorted_and_say_who_never_arrives(make_frames: MakeFrames) -> None:
    drawn = curves(*make_frames({"a": ({}, [(0.5, 0.5)], MB, MB)}))
    table = pd.DataFrame(
        {
            "setting": [""] * 4,
            "method": ["dear", "FedAvg", "never", "unfinished"],
            "seeds": [2, 2, 2, 0],
            "target": ["global_test_accuracy >= 0.5"] * 4,
            "reached": ["1 of 2", "2 of 2", "0 of 2", "0 of 0"],
            "MB_to_target": [spread([9.0]), spread([3.0, 5.0]), NOT_REACHED, "not known"],
        }
    )
    (axes,) = target_figure(table, drawn).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["FedAvg", "dear", "never"]
    assert [patch.get_width() for patch in axes.patches] == [4.0, 9.0, 0.0]
    assert [text.get_text() for text in axes.texts] == [
        "4.0 ± 1.4 MB",
        "9 MB (1 of 2 seeds)",
        "not reached (0 of 2 seeds)",
    ]
    assert axes.get_title() == "Bytes until accuracy on the global test set >= 0.5"
    assert axes.get_xlabel() == "sent up and down (MB = 10$^6$ bytes)"


def test_phases_are_means_and_what_is_in_none_is_other(make_frames: MakeFrames) -> None:
    runs, rounds = make_frames({"a": ({}, [(0.5, 0.5)] * 2, MB, MB)})
    rounds = rounds.assign(
        seconds_train=[1.0, 2.0], seconds_aggregate=[0.5, 0.5], seconds_evaluate=[1.0, np.nan],
        seconds_total=[3.0, 4.0],
    )  # fmt: skip
    (row,) = phases({"FedAvg": rounds}).to_dict("records")
    assert row == {"train": 1.5, "aggregate": 0.5, "evaluate": 1.0, "other": 0.5, "total": 3.5}
    figure = phases_figure(curves(runs, rounds))
    (axes,) = figure.axes
    assert [patch.get_width() for patch in axes.patches] == [1.5, 0.5, 1.0, 0.5]
    assert [patch.get_x() for patch in axes.patches] == [0.0, 1.5, 2.0, 3.0]
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["train", "aggregate", "evaluate", "other"]
    assert len({patch.get_hatch() for patch in axes.patches}) == 4, "in print, too"


def test_the_distribution_over_clients_pools_seeds(make_frames: MakeFrames) -> None:
    runs = {f"s{seed}": ({"seed": seed}, [(0.5, 0.5)], MB, MB) for seed in (0, 1)}
    values = pd.DataFrame(
        {
            "run_id": ["s0", "s0", "s1", "s1"], "client": [0, 1, 0, 1],
            "local_test_accuracy": [0.5, 0.25, 1.0, 0.75],
        }
    )  # fmt: skip
    (axes,) = clients_figure(curves(*make_frames(runs)), values).axes
    (line,) = axes.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [0.25, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_array_equal(line.get_ydata(), [0, 0.25, 0.5, 0.75, 1.0])
    assert axes.get_xlabel() == "accuracy on the client's own test split (fraction)"
    assert axes.get_ylabel() == "share of clients at or below"


def test_the_heat_map_shows_shares_and_counts_and_each_partition_once(
    make_frames: MakeFrames,
) -> None:
    held = json.dumps([[3, 1], [0, 4]])
    fields = {
        "a": {"holdings": held},
        "b": {"holdings": held, "algorithm": "spatl"},
        "c": {"holdings": "[[2, 2]]", "seed": 1},
        "d": {"holdings": None, "seed": 2},
    }
    runs, _ = make_frames({name: (own, [(0.5, 0.5)], MB, MB) for name, own in fields.items()})
    figure = partition_figure(runs)
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in maps] == [
        "dirichlet(beta=0.3)\nseed 0, 10 clients, the first 2",
        "dirichlet(beta=0.3)\nseed 1, 10 clients, the first 1",
    ]
    np.testing.assert_array_equal(maps[0].images[0].get_array(), [[0.75, 0.25], [0, 1]])
    assert [text.get_text() for text in maps[0].texts] == ["3", "1", "4"]
    assert (maps[0].get_xlabel(), maps[0].get_ylabel()) == ("class", "client")
    with pytest.raises(LoadError, match="holdings of run 'a' must be a list of counts a client"):
        partitions(runs.assign(holdings="[1]").head(1))


def _search(make_frames: MakeFrames) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Five trials, of which c is beaten by b, and d by a (as dear, but worse)."""
    trial = {
        "a": (0.5, 1, "finished"), "b": (0.75, 2, "interrupted"), "c": (0.625, 3, "finished"),
        "d": (0.25, 1, "interrupted"), "e": (0.875, 4, "finished"),
    }  # fmt: skip
    runs = {
        name: (
            {
                "sweep_id": "night", "trial_id": f"t{name}", "status": status,
                "config": json.dumps({"algorithm": {"keep": cost / 4}}),
            },
            [(0.5, 0.5)], cost * MB // 2, cost * MB // 2,
        )
        for name, (_, cost, status) in trial.items()
    }  # fmt: skip
    runs["plain"] = ({}, [(0.5, 0.5)], 1, 1)
    heads, rounds = make_frames(runs)
    rounds[VALIDATION] = [*(value for value, _, _ in trial.values()), 0.99]
    return heads, rounds


def test_the_front_holds_who_is_beaten_by_none(make_frames: MakeFrames) -> None:
    table = trials(*_search(make_frames)).set_index("run_id")
    assert table["on_front"].to_dict() == {"a": True, "b": True, "c": False, "d": False, "e": True}
    assert table["megabytes"].tolist() == [1.0, 2.0, 3.0, 1.0, 4.0]
    shown = front_table(*_search(make_frames))
    assert shown["trial_id"].tolist() == ["ta", "tb", "te"]
    assert shown["algorithm.keep"].tolist() == ["0.25", "0.5", "1"]


def test_front_by_definition() -> None:
    """Against the definition, on points with many ties."""
    generator = np.random.default_rng(0)
    points = pd.DataFrame(generator.integers(0, 6, (40, 2)), columns=["megabytes", "accuracy"])

    def is_beaten(p: pd.Series) -> bool:
        at_least = (points["accuracy"] >= p["accuracy"]) & (points["megabytes"] <= p["megabytes"])
        return bool((at_least & (points != p).any(axis=1)).any())

    expected = {i for i, p in points.iterrows() if not is_beaten(p)}
    assert set(front(points).index) == expected


def test_the_picture_of_a_search_tells_stopped_trials_apart(make_frames: MakeFrames) -> None:
    (axes,) = pareto_figure(trials(*_search(make_frames))).axes
    (stairs,) = axes.get_lines()
    np.testing.assert_array_equal(stairs.get_xdata(), [1, 2, 4])
    np.testing.assert_array_equal(stairs.get_ydata(), [0.5, 0.75, 0.875])
    stopped, done = axes.collections
    assert (stopped.get_label(), done.get_label()) == ("FedAvg, stopped early", "FedAvg")
    assert sorted(map(tuple, stopped.get_offsets().tolist())) == [(1, 0.25), (2, 0.75)]
    assert len(done.get_offsets()) == 3
    assert axes.get_title() == "night\n5 trials, 3 to the end"
    assert axes.get_ylabel() == "validation accuracy (fraction)"


def test_dollars_and_underscores_in_names_are_shown(make_frames: MakeFrames) -> None:
    """Two dollars are no formula, and a legend does not leave out what begins with an underscore."""
    names = {"own:_Mine": "_Mine", "own:A$_x^$B": "A$_x^$B"}
    trial: dict[str, object] = {"sweep_id": "$x_$", "dataset": "_d$1$", "holdings": "[[1, 1]]"}
    runs, rounds = make_frames(
        {
            name: (trial | {"algorithm": name, "trial_id": name, "clients": i + 1}, VALUES, MB, MB)
            for i, name in enumerate(names)
        }
    )
    rounds[VALIDATION] = rounds["seconds_train"] = 0.5
    drawn = curves(runs, rounds)
    values = pd.DataFrame({"run_id": list(names), "client": 0, "local_test_accuracy": 0.5})
    for figure in (rounds_figure(drawn, [OWN]), clients_figure(drawn, values), phases_figure(drawn),
                   partition_figure(runs), pareto_figure(trials(runs, rounds))):  # fmt: skip
        figure.draw_without_rendering()
        texts = [text.get_text() for text in figure.findobj(Text) if text.get_text()]
        assert not [text for text in texts if is_formula(text) and "10$^6$" not in text]
    legends = [rounds_figure(drawn, [OWN]).legends[0], clients_figure(drawn, values).legends[0],
               pareto_figure(trials(runs, rounds)).axes[0].get_legend()]  # fmt: skip
    for legend in legends:
        shown = {text.get_text().strip().replace(r"\$", "$") for text in legend.get_texts()}
        assert set(names.values()) <= shown
    bars = [text.get_text() for text in phases_figure(drawn).axes[0].get_yticklabels()]
    assert bars == [r"A\$_x^\$B"] or bars == [" _Mine"]


def is_formula(text: str) -> bool:
    """Whether matplotlib takes some of it for mathematics."""
    return bool(is_math_text(text))


LONG = "dirichlet(beta=0.1, balanced=true, minimum=10, in_words_that_go_on_and_on_and_on=1)"


def test_titles_hold_the_whole_setting_and_stand_apart(make_frames: MakeFrames) -> None:
    """Long names are broken into lines, so that no title touches the next, or the picture's edge."""
    held = [json.dumps([[i, 1]]) for i in range(3)]
    runs, rounds = make_frames(
        {
            f"r{i}": (
                {"partition": f"{LONG}{i // 2}", "seed": i, "holdings": held[i], "trial_id": "t",
                 "sweep_id": LONG * 2, "config": json.dumps({"algorithm": {"keep": 0.5}})},
                VALUES, MB, MB,
            )
            for i in range(3)
        }
    )  # fmt: skip
    rounds[VALIDATION] = rounds["selection_reward_mean"] = 0.5
    rounds["inference_flops_share_mean"] = rounds["inference_local_test_accuracy_mean"] = 0.5
    drawn = curves(runs, rounds)
    values = pd.DataFrame({"run_id": ["r0", "r1", "r2"], "client": 0, "local_test_accuracy": 0.5})
    layers = pd.DataFrame(
        {"run_id": runs["run_id"], "round": 0, "layer": "a", "keep_ratio": 0.5}
    ).assign(inference_keep_ratio=np.nan)
    by_settings = [clients_figure(drawn, values), reward_figure(drawn), flops_figure(drawn, runs)]
    others = [partition_figure(runs), keep_ratio_figure(drawn, layers, runs)]
    for figure in by_settings:
        titles = ["".join(axes.get_title().split()) for axes in figure.axes]
        settings = [LONG.replace(" ", "") + end for end in "01"]
        assert all(name in title for name, title in zip(settings, titles, strict=True))
    for figure in (*by_settings, *others, pareto_figure(trials(runs, rounds))):
        figure.draw_without_rendering()
        boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
        assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_bars_that_are_left_out_are_counted(make_frames: MakeFrames) -> None:
    names = [f"m{i:02}" for i in range(MOST_BARS + 2)]
    table = pd.DataFrame({"method": names, "setting": "", "seeds": 1, "reached": "1 of 1"}).assign(
        target="global_test_accuracy >= 0.5",
        MB_to_target=[spread([float(i)]) for i in range(len(names))],
    )
    (axes,) = target_figure(table, []).axes
    assert axes.get_title().splitlines()[1] == "2 dearer methods are not shown"
    assert [text.get_text() for text in axes.get_yticklabels()] == names[:MOST_BARS]
