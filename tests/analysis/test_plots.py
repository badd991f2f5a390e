from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from analysis.curves import COLOURS, MOST_CURVES, curves
from analysis.lines import bytes_figure, drift_figure, rounds_figure, simulated_figure
from analysis.metrics import CLIENTS, CONTROL_NORM, COSINE, GLOBAL, OWN, PANEL
from analysis.panels import MOST_ROWS, pages
from analysis.plots import Drawing, main, save

pytestmark = pytest.mark.integration

WriteRun = Callable[..., Path]
MakeFrames = Callable[..., tuple[pd.DataFrame, pd.DataFrame]]

MB = 10**6
AVG = [(0.25, 0.125), (None, 0.25), (0.5, 0.375)]


def _frames(make_frames: MakeFrames) -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_frames(
        {
            "avg": ({"algorithm": "fedavg"}, AVG, 3 * MB, 3 * MB),
            "spatl": ({"algorithm": "spatl"}, [(0.75, None), (0.875, None)], MB // 8, MB // 8),
            "local": ({"algorithm": "local_only"}, [(0.5, 0.25), (0.625, 0.5)], 0, 0),
        }
    )


def _lines(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {
        str(line.get_label()): (
            np.ravel(line.get_xdata()).tolist(),
            np.ravel(line.get_ydata()).tolist(),
        )
        for line in axes.get_lines()
    }


def test_lines_against_rounds_are_the_evaluated_rows(make_frames: MakeFrames) -> None:
    own, whole = rounds_figure(curves(*_frames(make_frames)), [OWN, GLOBAL]).axes
    assert _lines(own) == {
        "FedAvg": ([0, 2], [0.25, 0.5]),
        "SPATL": ([0, 1], [0.75, 0.875]),
        "Local only": ([0, 1], [0.5, 0.625]),
    }
    assert _lines(whole) == {
        "FedAvg": ([0, 1, 2], [0.125, 0.25, 0.375]),
        "Local only": ([0, 1], [0.25, 0.5]),
    }
    assert own.get_xlabel() == whole.get_xlabel() == "communication round (from 0)"
    assert own.get_ylabel() == whole.get_ylabel() == "accuracy (fraction)"
    assert whole.get_title() == "Global test set"


@pytest.mark.parametrize(
    ("metric", "clients", "over"),
    [
        (OWN, [3, 3, 6], "the 3 to 6 clients that have trained"),
        (OWN, [None] * 3, "the clients that have trained"),
        (PANEL, [9, None, 9], "the 9 clients of the panel"),
    ],
)
def test_the_own_split_panel_says_over_whom_and_how_many(
    make_frames: MakeFrames, metric: str, clients: list[int | None], over: str
) -> None:
    runs, rounds = make_frames({"avg": ({}, AVG, MB, MB)})
    rounds[CLIENTS[metric]] = clients
    (own,) = rounds_figure(curves(runs, rounds), [metric]).axes
    assert own.get_title() == f"Clients' own test splits\nmean over {over}"


def test_pictures_and_summary_compare_over_the_panel_where_it_is_known(
    tmp_path: Path, write_run: WriteRun
) -> None:
    new = write_run(tmp_path / "new", "new", AVG, panel=[0.25, None, 0.375])
    table, _ = save(Drawing(new), tmp_path / "out", "svg", ["rounds"])
    assert table["final_own_test_accuracy"].tolist() == [0.375]
    old = write_run(tmp_path / "old", "old", AVG)
    table, _ = save(Drawing([old, new]), tmp_path / "out", "svg", ["rounds"])
    assert table["final_own_test_accuracy"].tolist() == [0.5, 0.5]
    assert Drawing(new).metrics == [PANEL, GLOBAL]
    assert Drawing([old, new]).metrics == [OWN, GLOBAL]


def _seeds(make_frames: MakeFrames) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two seeds of one method; the second one was evaluated in two rounds only, and costs twice."""
    return make_frames(
        {
            "s0": ({"seed": 0}, [(0.25, 0.5), (0.5, 0.5), (0.75, 0.5)], MB, MB),
            "s1": ({"seed": 1}, [(0.5, 0.5), (None, 0.5), (0.25, 0.5)], 2 * MB, 2 * MB),
        }
    )


def test_seeds_are_one_line_with_a_band(make_frames: MakeFrames) -> None:
    """Means 0.375 and 0.5 in rounds 0 and 2; deviations |a - b| / sqrt(2), n - 1 in the denominator."""
    drawn = curves(*_seeds(make_frames))
    assert [(c.label, c.runs) for c in drawn] == [("FedAvg", {"s0": 0, "s1": 1})]
    figure = rounds_figure(drawn, [OWN])
    (axes,) = figure.axes
    assert _lines(axes) == {"FedAvg": ([0, 2], [0.375, 0.5])}
    (band,) = axes.collections
    edges = band.get_paths()[0].vertices
    ends = {x: sorted({y for at, y in edges if at == x}) for x in (0.0, 2.0)}
    np.testing.assert_allclose(ends[0.0], [0.375 - 0.25 / 2**0.5, 0.375 + 0.25 / 2**0.5])
    np.testing.assert_allclose(ends[2.0], [0.5 - 0.5 / 2**0.5, 0.5 + 0.5 / 2**0.5])
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["FedAvg", "mean of 2 seeds, band: standard deviation"]
    (axes,) = bytes_figure(drawn, [OWN]).axes
    assert _lines(axes) == {"FedAvg": ([3, 9], [0.375, 0.5])}


def test_a_seed_that_has_not_finished_is_a_line_of_its_own(make_frames: MakeFrames) -> None:
    runs, rounds = _seeds(make_frames)
    runs.loc[1, "status"] = "running"
    (axes,) = rounds_figure(curves(runs, rounds), [OWN]).axes
    assert _lines(axes) == {
        "FedAvg": ([0, 1, 2], [0.25, 0.5, 0.75]),
        "FedAvg (running)": ([0, 2], [0.5, 0.25]),
    }


def test_of_a_crowd_the_best_ten_are_told_apart(make_frames: MakeFrames) -> None:
    """Method i of 25 ends at i / 100."""
    runs = {f"r{i:02}": ({"config": _option(i)}, [(i / 100, 0.5)], MB, MB) for i in range(25)}
    figure = rounds_figure(curves(*make_frames(runs)), [OWN])
    (axes,) = figure.axes
    told = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    assert [line.get_label() for line in told] == [f"FedAvg, option {i}" for i in range(15, 25)]
    assert len({(line.get_color(), line.get_linestyle()) for line in told}) == MOST_CURVES
    assert len(axes.get_lines()) == 25
    assert figure.legends[0].get_texts()[-1].get_text() == "grey: 15 other methods"


def test_many_settings_go_on_in_the_next_picture(make_frames: MakeFrames) -> None:
    runs = {f"r{i}": ({"clients": 10 + i}, [(0.5, 0.5)], MB, MB) for i in range(MOST_ROWS + 2)}
    parts = pages(curves(*make_frames(runs)))
    assert [len(part) for part in parts] == [MOST_ROWS, 2]
    titles = [axes.get_title().split("\n")[0] for axes in rounds_figure(parts[1], [OWN]).axes]
    assert titles == [f"{10 + MOST_ROWS} clients", f"{11 + MOST_ROWS} clients"]


def test_drift_shows_cosine_and_norm_of_those_that_have_them(make_frames: MakeFrames) -> None:
    runs, rounds = _frames(make_frames)
    own = rounds["run_id"] == "spatl"
    rounds.loc[own, COSINE] = [0.75, 0.5]
    rounds.loc[own, CONTROL_NORM] = [1.5, 2.5]
    cosine, norm = drift_figure(curves(runs, rounds)).axes
    assert _lines(cosine) == {"SPATL": ([0, 1], [0.75, 0.5])}
    assert _lines(norm) == {"SPATL": ([0, 1], [1.5, 2.5])}
    assert cosine.get_ylabel() == "cosine of updates with their sum"
    assert norm.get_ylabel() == "L2 norm (loss / parameter)"


def _option(value: object) -> str:
    return json.dumps({"algorithm": {"name": "fedavg", "options": {"option": value}}})


def test_lines_against_bytes_are_megabytes_up_and_down(make_frames: MakeFrames) -> None:
    own, whole = bytes_figure(curves(*_frames(make_frames)), [OWN, GLOBAL]).axes
    assert _lines(own) == {
        "FedAvg": ([6, 18], [0.25, 0.5]),
        "SPATL": ([0.25, 0.5], [0.75, 0.875]),
        "Local only: 0 bytes, final value": ([0, 1], [0.625, 0.625]),
    }
    assert "MB" in own.get_xlabel()
    assert "10$^6$ bytes" in own.get_xlabel()
    assert own.get_xscale() == "log", "from 0.25 to 18 MB"
    assert whole.get_xscale() == "linear", "one run with bytes has a value on the global test set"


def test_lines_against_simulated_seconds_leave_out_and_name_runs_without(
    make_frames: MakeFrames,
) -> None:
    runs = {
        "avg": ({"algorithm": "fedavg"}, AVG, MB, MB, 20.0),
        "spatl": ({"algorithm": "spatl"}, [(0.75, None), (0.875, None)], MB, MB, 4.0),
        "plain": ({"algorithm": "scaffold"}, AVG, MB, MB),
    }
    figure = simulated_figure(curves(*make_frames(runs)), [OWN, GLOBAL])
    own, whole = figure.axes
    assert _lines(own) == {"FedAvg": ([20, 60], [0.25, 0.5]), "SPATL": ([4, 8], [0.75, 0.875])}
    assert _lines(whole) == {"FedAvg": ([20, 40, 60], [0.125, 0.25, 0.375])}
    assert own.get_xlabel() == "simulated time so far (s)"
    assert [own.get_xscale(), whole.get_xscale()] == ["log", "linear"]
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["FedAvg", "SPATL", "SCAFFOLD: no simulated time"]


@pytest.mark.parametrize("factor", [12, 90, 900, 10**4, 10**6])
def test_labels_of_a_logarithmic_axis_stand_apart(make_frames: MakeFrames, factor: int) -> None:
    ends = [[(0.5, 0.5)]] * 2
    runs = {
        f"r{i}": ({"config": _option(i)}, values, MB, MB, seconds)
        for i, (values, seconds) in enumerate(zip(ends, (7.0, 7.0 * factor), strict=True))
    }
    figure = simulated_figure(curves(*make_frames(runs)), [OWN, GLOBAL])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    shown = [text.get_window_extent() for text in axes.get_xticklabels() if text.get_text()]
    boxes = sorted((box.x0, box.x1) for box in shown if axes.bbox.x0 <= box.x0 <= axes.bbox.x1)
    assert len(boxes) >= 2
    assert all(end < start for (_, end), (start, _) in pairwise(boxes))


def test_a_picture_of_simulated_time_needs_a_run_that_has_it(
    tmp_path: Path, write_run: WriteRun, make_older: Callable[[Path], Path]
) -> None:
    old = make_older(write_run(tmp_path / "old", "old", AVG, algorithm="fedavg"))
    options = ["--no-show-table", "--format", "svg"]
    assert main([str(old), *options]) == 0
    stems = ("accuracy_bytes", "accuracy_rounds", "bytes_to_target", "seconds_by_phase")
    names = [*(f"{stem}.svg" for stem in stems), "summary.csv", "summary.md"]
    assert sorted(path.name for path in (old / "plots").iterdir()) == names
    new = write_run(tmp_path / "new", "new", AVG, algorithm="spatl", simulated=3.0)
    out = tmp_path / "out"
    assert main([str(old), str(new), *options, "--out", str(out)]) == 0
    assert "<svg" in (out / "accuracy_simulated_seconds.svg").read_text()
    summary = pd.read_csv(out / "summary.csv").set_index("run_id")
    assert summary["simulated_seconds"].to_dict() == {"new": "9.0", "old": "not known"}


def test_a_run_that_is_evaluated_before_its_first_byte_begins_after_it(
    make_frames: MakeFrames,
) -> None:
    runs, rounds = make_frames({"avg": ({}, AVG, 3 * MB, 0)})
    rounds.loc[0, "bytes_up_cumulative"] = 0
    own = bytes_figure(curves(runs, rounds), [OWN]).axes[0]
    assert _lines(own) == {"FedAvg": ([9], [0.5])}


def test_each_data_set_has_its_own_panels(make_frames: MakeFrames) -> None:
    """The same algorithm looks the same on all of them, and stands in the legend once."""
    once, other = [(0.25, 0.5)], [(0.75, 1.0)]
    runs = {
        "a": ({"algorithm": "fedavg", "dataset": "digits"}, once, MB, MB),
        "b": ({"algorithm": "fedavg", "dataset": "fcube"}, other, MB, MB),
        "c": ({"algorithm": "spatl", "dataset": "fcube"}, other, MB, MB),
    }
    drawn = curves(*make_frames(runs))
    figure = rounds_figure(drawn, [OWN, GLOBAL])
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == [
        *("digits", "digits"),
        *("fcube", "fcube"),
    ]
    assert [sorted(_lines(axes)) for axes in figure.axes] == [
        *([["FedAvg"]] * 2),
        *([["FedAvg", "SPATL"]] * 2),
    ]
    assert _lines(figure.axes[2])["FedAvg"] == ([0], [0.75])
    looks = {(c.colour, c.line, c.marker) for c in drawn if c.label == "FedAvg"}
    assert len(looks) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["FedAvg", "SPATL"]


@pytest.mark.parametrize(("algorithms", "options"), [(1, 30), (30, 1), (7, 4)])
def test_many_methods_all_look_different(
    make_frames: MakeFrames, algorithms: int, options: int
) -> None:
    runs = {
        f"{a}-{o}": ({"algorithm": f"a{a:02}", "config": _option(o)}, [(0.5, 0.5)], 1, 1)
        for a in range(algorithms)
        for o in range(options)
    }
    drawn = curves(*make_frames(runs))
    assert len({(c.colour, c.line, c.marker) for c in drawn}) == algorithms * options
    assert len({c.colour for c in drawn}) == len(COLOURS)


@pytest.mark.parametrize("count", [1, 4, 10])
@pytest.mark.parametrize("option", ["iid", "dirichlet and several words more"])
def test_the_legend_lies_below_the_panels_and_takes_no_width_from_them(
    make_frames: MakeFrames, count: int, option: str
) -> None:
    runs = {f"r{i}": ({"config": _option(f"{option} {i}")}, AVG, MB, MB) for i in range(count)}
    figure = rounds_figure(curves(*make_frames(runs)), [OWN, GLOBAL])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    panels = [axes.get_tightbbox() for axes in figure.axes]
    assert len(legend.get_texts()) == count
    assert all(panel.y0 > box.y1 for panel in panels)  # type: ignore[union-attr]
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0
    assert sum(axes.bbox.width for axes in figure.axes) > 0.75 * figure.bbox.width
    assert all(axes.bbox.height > 2 * figure.dpi for axes in figure.axes)


def test_a_panel_without_values_says_so(make_frames: MakeFrames) -> None:
    figure = rounds_figure(curves(*make_frames({"a": ({}, [(0.5, None)], 1, 1)})), [OWN, GLOBAL])
    assert [text.get_text() for text in figure.axes[1].texts] == ["not evaluated"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["FedAvg"]
