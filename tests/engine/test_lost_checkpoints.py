"""Checkpoints that are somewhere else, gone, or of the same run in another results folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from broken_off import ROUNDS, Watch, broken_off, experiment_of, without_history
from identity import assert_identical, everything

from spatl_ray import resume, run
from spatl_ray.config import Experiment
from spatl_ray.engine.folders import checkpoint_folder, state_folder
from spatl_ray.errors import ResultsError, StateError

pytestmark = pytest.mark.integration

MLP = {"name": "mlp", "options": {"hidden": [8]}}


def experiment(folder: Path, **fields: Any) -> Experiment:
    return experiment_of(folder, "scaffold", model=MLP, **fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    quiet = experiment(tmp_path_factory.mktemp("quiet"))
    run(quiet)
    return without_history(everything(quiet))


def went_on(folder: Path, run_id: str, **options: Any) -> list[int]:
    """The rounds that were run."""
    watch = Watch()
    resume(folder, run_id, callbacks=[watch], **options)
    return watch.rounds


def test_a_relative_folder_is_found_from_anywhere(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "there")
    places = {"checkpoints": {"folder": "ck"}, "engine": {"state_folder": "fast"}}
    each = experiment(tmp_path / "results", **places)
    broken_off(each, after=4)
    monkeypatch.chdir(tmp_path / "here")
    assert went_on(tmp_path / "results", each.run_id) == [4, 5]
    assert_identical(without_history(everything(each)), whole)
    assert os.listdir(tmp_path / "here") == []


def _empty(place: Path) -> None:
    for path in place.iterdir():
        path.write_bytes(b"")


@pytest.mark.parametrize("lose", [shutil.rmtree, _empty])
@pytest.mark.parametrize("given", [None, "elsewhere"])
def test_a_run_does_not_begin_again_unasked(
    tmp_path: Path, whole: dict[str, Any], lose: Any, given: str | None
) -> None:
    folder = None if given is None else str(tmp_path / given)
    each = experiment(tmp_path / "results", checkpoints={"folder": folder})
    broken_off(each, after=4)
    place = Path(checkpoint_folder(each))
    lose(place)
    before = pd.read_parquet(tmp_path / "results" / "rounds")
    rule = (
        r"must hold the checkpoints that run '.*' has taken, got .*or begin with round 0 by --force"
    )
    with pytest.raises(StateError, match=rule) as caught:
        resume(tmp_path / "results", each.run_id)
    assert str(place) in str(caught.value)
    assert pd.read_parquet(tmp_path / "results" / "rounds").equals(before)
    assert went_on(tmp_path / "results", each.run_id, force=True) == list(range(ROUNDS))
    assert_identical(without_history(everything(each)), whole)


def test_a_run_that_took_none_begins_again(tmp_path: Path) -> None:
    each = experiment(tmp_path)
    broken_off(each, after=0)
    assert went_on(tmp_path, each.run_id) == list(range(ROUNDS))


def test_one_folder_for_the_same_run_in_two_results(tmp_path: Path, whole: dict[str, Any]) -> None:
    shared = {"folder": str(tmp_path / "ck")}
    one, two = (experiment(tmp_path / name, checkpoints=shared) for name in ("one", "two"))
    broken_off(one, after=4)
    broken_off(two, after=1)
    assert one.run_id == two.run_id
    assert went_on(tmp_path / "one", one.run_id) == [4, 5]
    assert went_on(tmp_path / "two", two.run_id) == [1, 2, 3, 4, 5]
    for each in (one, two):
        assert_identical(without_history(everything(each)), whole)


def test_results_that_were_moved_know_where_the_rest_is(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    places = {
        "checkpoints": {"folder": (tmp_path / "ck").as_uri()},
        "engine": {"state_folder": str(tmp_path / "fast")},
    }
    broken_off(experiment(tmp_path / "before", **places), after=4)
    shutil.move(tmp_path / "before", tmp_path / "after")
    each = experiment(tmp_path / "after", **places)
    assert went_on(tmp_path / "after", each.run_id) == [4, 5]
    assert_identical(without_history(everything(each)), whole)
    assert [path.name for path in (tmp_path / "fast").iterdir()] == [state_folder(each).name]


def test_all_that_moved_together_is_found(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "before").mkdir()
    monkeypatch.chdir(tmp_path / "before")
    places = {"checkpoints": {"folder": "ck"}, "engine": {"state_folder": "fast"}}
    broken_off(experiment(Path("results"), **places), after=4)
    shutil.move(tmp_path / "before", tmp_path / "after")
    monkeypatch.chdir(tmp_path / "after")
    each = experiment(Path("results"), **places)
    assert went_on(Path("results"), each.run_id) == [4, 5]
    assert_identical(without_history(everything(each)), whole)


@pytest.mark.parametrize("text", ["", "[]", '{"results": "x"}', "\0"])
def test_a_damaged_origin_is_named(tmp_path: Path, text: str) -> None:
    each = experiment(tmp_path, checkpoints={"folder": str(tmp_path / "ck")})
    broken_off(each, after=1)
    (path,) = tmp_path.glob("bookkeeping/*/origin.json")
    assert json.loads(path.read_text())["results"] == str(tmp_path)
    path.write_text(text)
    with pytest.raises(ResultsError, match=r"origin\.json must say where the run began, got "):
        resume(tmp_path, each.run_id)
