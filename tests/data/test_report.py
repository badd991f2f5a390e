"""Who holds what as text: aligned, complete, and right."""

from __future__ import annotations

import numpy as np

from spatl_ray import config
from spatl_ray.data.report import figures_text, holdings_text, partition_text


def test_figures_stand_below_each_other() -> None:
    table = np.array([[1200, 0, 0], [0, 3, 3], [0, 2, 2]])
    lines = figures_text(table).splitlines()
    assert [line.split("  ")[-1] for line in lines] == [
        "mean, from 0 to 2",
        "90th percentile",
        "0 if all are equal",
        "smallest",
        "median",
        "largest",
        "mean, of 3",
    ]
    values = [line.rsplit("  ", 1)[0].split()[-1] for line in lines]
    assert values[3:] == ["4", "6", "1,200", "1.667"]
    assert len({len(line.rsplit("  ", 1)[0]) for line in lines}) == 1


def test_noise_is_shown_where_it_is() -> None:
    table = np.array([[1, 2], [3, 4]])
    plain = figures_text(table)
    noisy = figures_text(table, np.array([0.0, 0.25]))
    assert noisy.startswith(plain)
    smallest, largest = noisy.removeprefix(plain).strip().splitlines()
    assert " ".join(smallest.split()) == "noise on the features 0 standard deviation, smallest"
    assert " ".join(largest.split()) == "0.25 largest"


def test_holdings_are_the_counts_in_blocks_of_ten_classes() -> None:
    table = np.random.default_rng(0).integers(0, 2000, (12, 23))
    title, *blocks = holdings_text(table).split("\nclient")
    assert title == "samples of each class"
    found = [[line.replace(",", "").split() for line in block.splitlines()] for block in blocks]
    assert [block[0] for block in found] == [
        ["all", *map(str, columns)] for columns in (range(10), range(10, 20), range(20, 23))
    ]
    rows = np.array(found[0][1:], dtype=np.int64)
    assert rows[:, 0].tolist() == list(range(12))
    assert rows[:, 1].tolist() == table.sum(axis=1).tolist()
    parts = [np.array(block[1:], dtype=np.int64)[:, 2:] for block in found]
    assert np.array_equal(np.concatenate(parts, axis=1), table)


def test_columns_are_flush_right() -> None:
    lines = holdings_text(np.array([[1, 22_222], [333, 4]])).splitlines()[1:]
    assert lines == [
        "client     all    0       1",
        "     0  22,223    1  22,222",
        "     1     337  333       4",
    ]


def test_a_partition_shows_its_parameters() -> None:
    assert partition_text(config.Iid()) == "iid"
    assert partition_text(config.Dirichlet()) == "dirichlet(beta=0.5, min_size=10)"
    own = config.OwnPartition(name="mine:deal", options={"parts": [1, 2], "by": "hour"})
    assert partition_text(own) == "mine:deal(parts=[1, 2], by=hour)"
