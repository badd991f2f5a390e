"""Summaries over clients against NumPy, run by run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.clients import by_round, final, jain, totals
from analysis.load import LoadError
from analysis.metrics import OWN

WriteRun = Callable[..., Path]


def test_summaries_of_rounds_are_numpys(tmp_path: Path, write_run: WriteRun) -> None:
    generator = np.random.default_rng(0)
    values = [generator.random(size).tolist() for size in (1, 2, 7, 30)]
    clients = [[*own, None] for own in values]
    write_run(tmp_path, "a", [(0.5, 0.5)] * 4, clients=clients)
    write_run(tmp_path, "b", clients=[[0.0, 0.0]])
    table = by_round(tmp_path)
    assert table["run_id"].tolist() == ["a"] * 4 + ["b"]
    assert table["clients"].tolist() == [1, 2, 7, 30, 2]
    own = table[table["run_id"] == "a"]
    for name, function in (("mean", np.mean), ("std", np.std), ("worst", np.min), ("jain", jain)):
        np.testing.assert_allclose(own[name], [function(np.array(v)) for v in values], atol=1e-12)
    np.testing.assert_allclose(own["p10"], [np.percentile(v, 10) for v in values])
    assert np.isnan(table["jain"].iloc[-1]), "of zeros it is not defined"


def test_jain_by_hand() -> None:
    assert jain(np.array([0.5, 0.5])) == 1.0
    assert jain(np.array([1.0, 0.0, 0.0, 0.0])) == 0.25


def test_the_last_evaluated_round_counts(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(
        tmp_path, "a", [(0.5, 0.5), (0.5, 0.5), (None, None)], clients=[[0.1], [0.2, 0.3], [0.9]]
    )
    write_run(tmp_path, "b", [(None, None)], clients=[[0.7]])
    rounds = pd.DataFrame(
        {
            "run_id": ["a", "a", "a", "b", "c"],
            "round": [0, 1, 2, 0, 0],
            OWN: [0.5, 0.5, None, None, 1],
        }
    )
    values = final(tmp_path, rounds, known=OWN)
    columns = {"run_id": ["a", "a"], "client": [0, 1], "local_test_accuracy": [0.2, 0.3]}
    assert values.to_dict("list") == columns
    assert final(tmp_path, rounds.iloc[3:4], known=OWN).empty


def test_totals_are_sums_of_what_is_known(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "a", [(0.5, 0.5)] * 2, clients=[[0.1, 0.2], [0.3]])
    table = totals(tmp_path, ["flops", "simulated_seconds"])
    sums = {"rounds": 2, "flops": 3e12, "simulated_seconds": None}
    assert table.to_dict("records") == [{"run_id": "a"} | sums]


def test_a_column_of_text_has_no_mean(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "a", clients=[[0.1]])
    with pytest.raises(LoadError, match="column must be a number, got 'actor' of type string"):
        by_round(tmp_path, "actor")
