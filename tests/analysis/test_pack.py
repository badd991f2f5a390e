from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pytest

from analysis.load import LoadError, load, run_ids
from analysis.pack import main, pack, unpack
from spatl_ray.results.reader import read_rounds, read_run

WriteRun = Callable[..., Path]


def test_packed_runs_read_like_the_folder(tmp_path: Path, write_run: WriteRun) -> None:
    source = tmp_path / "results"
    write_run(source, "b", [(0.5, None), (0.75, 0.5)])
    write_run(source, "a", [(0.25, 0.125)], status="running")
    paths = pack(source, tmp_path / "packed")
    assert [path.name for path in paths] == ["runs.parquet", "rounds.parquet"]
    for table in ("runs", "rounds"):
        pd.testing.assert_frame_equal(load(tmp_path / "packed", table), load(source, table))
    where = pc.field("local_test_accuracy_mean") > 0.6
    chosen = load(tmp_path / "packed", "rounds", ["run_id", "round"], ["b"], where)
    assert chosen.to_dict("list") == {"run_id": ["b"], "round": [1]}
    with pytest.raises(LoadError, match="no rows of run 'z' in rounds; runs there: a, b"):
        load(tmp_path / "packed", "rounds", runs=["z"])


def test_laid_out_again_they_are_runs_to_the_platform(tmp_path: Path, write_run: WriteRun) -> None:
    source = write_run(tmp_path / "results", "a", [(0.5, 0.25), (0.75, 0.5)])
    pack(source, tmp_path / "packed")
    again = tmp_path / "again"
    assert len(unpack(tmp_path / "packed", again)) == 2
    assert read_run(again, "a") == read_run(source, "a")
    assert read_rounds(again, "a") == read_rounds(source, "a")


def test_what_is_there_is_left(tmp_path: Path, write_run: WriteRun) -> None:
    pack(write_run(tmp_path / "old", "a", [(0.5, 0.5)]), tmp_path / "packed")
    newer = write_run(tmp_path / "new", "a", [(0.75, 0.5)])
    assert unpack(tmp_path / "packed", newer) == []
    assert load(newer, "rounds")["local_test_accuracy_mean"].tolist() == [0.75]


def test_packed_and_other_folders_are_read_as_one(tmp_path: Path, write_run: WriteRun) -> None:
    pack(write_run(tmp_path / "old", "b"), tmp_path / "packed")
    other = write_run(tmp_path / "new", "a")
    assert run_ids([tmp_path / "packed", other]) == ["a", "b"]
    with pytest.raises(
        LoadError, match=r"run 'b' is there twice: in .*packed.runs.parquet and in .*old"
    ):
        load([tmp_path / "packed", tmp_path / "old"], "runs")


def test_runs_that_lack_a_table_and_older_ones(
    tmp_path: Path, write_run: WriteRun, make_older: Callable[[Path], Path]
) -> None:
    write_run(tmp_path / "results", "a")
    make_older(write_run(tmp_path / "results", "b"))
    pack(tmp_path / "results", tmp_path / "packed")
    rounds = load(tmp_path / "packed", "rounds")
    assert rounds["run_id"].tolist() == ["a", "b"]
    with pytest.raises(LoadError, match=r"clients holds no rows for .*packed"):
        pack(tmp_path / "results", tmp_path / "packed", ["runs", "clients"])
    assert len(load(tmp_path / "packed", "rounds")) == 2  # nothing was replaced
    pack(tmp_path / "results", tmp_path / "packed", ["runs"])
    assert not (tmp_path / "packed" / "rounds.parquet").exists()


def test_a_folder_is_not_made_unreadable(tmp_path: Path, write_run: WriteRun) -> None:
    source, packed = write_run(tmp_path / "results", "a"), tmp_path / "packed"
    pack(source, packed)
    with pytest.raises(LoadError, match="out must not hold results that are not packed"):
        pack(source, source)
    with pytest.raises(LoadError, match="out must not hold packed tables"):
        unpack(packed, packed)
    with pytest.raises(LoadError, match="holds no packed tables"):
        unpack(source, tmp_path / "again")
    assert len(load(source, "runs")) == len(load(packed, "runs")) == 1


def test_a_run_of_which_something_is_there_is_left_whole(
    tmp_path: Path, write_run: WriteRun
) -> None:
    """Rows of two attempts at a run are not mixed."""
    pack(write_run(tmp_path / "old", "a", [(0.5, 0.5)]), tmp_path / "packed")
    taken = tmp_path / "new" / "runs" / "run_id=a"
    taken.mkdir(parents=True)
    (taken / ".round-000000.compacted").write_bytes(b"")
    assert unpack(tmp_path / "packed", tmp_path / "new") == []


def test_unpacking_that_was_broken_off_goes_on(tmp_path: Path, write_run: WriteRun) -> None:
    """A run's row comes last, so that rows without one are those of a run that was begun."""
    source = write_run(tmp_path / "results", "a", [(0.5, 0.25), (0.75, 0.5)])
    pack(source, tmp_path / "packed")
    again = tmp_path / "again"
    rounds, run = unpack(tmp_path / "packed", again)
    assert (rounds.parts[-3], run.parts[-3]) == ("rounds", "runs")
    run.rename(run.with_name(f".{run.name}.part"))
    assert unpack(tmp_path / "packed", again) == [rounds, run]
    assert read_rounds(again, "a") == read_rounds(source, "a")
    assert unpack(tmp_path / "packed", again) == []


@pytest.mark.parametrize("value", ["../esc", "a/b", "..", None])
def test_values_that_name_no_folder_are_refused(
    tmp_path: Path, write_run: WriteRun, value: str | None
) -> None:
    write_run(tmp_path / "results", "a", trial_id=value)
    with pytest.raises(LoadError, match="by must be a column of values that can name folders"):
        pack(tmp_path / "results", tmp_path / "packed", by="trial_id")
    assert not (tmp_path / "packed").exists()


def test_the_command_packs_and_lays_out(
    tmp_path: Path, write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_run(tmp_path / "results", "a", [(0.5, 0.25)])
    packed, again = str(tmp_path / "packed"), str(tmp_path / "again")
    assert main([str(source), "--out", packed]) == 0
    assert main([packed, "--unpack", "--out", again]) == 0
    assert capsys.readouterr().out.endswith(f"2 files in {again}\n")
    assert main([str(tmp_path / "none"), "--out", packed]) == 1
    assert "error: there is no results folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([packed, "--unpack", "--out", again, "--by", "model"])
    assert "must be left out with --unpack" in capsys.readouterr().err


def test_each_value_of_a_column_has_its_folder(
    tmp_path: Path, write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_id, model in (("a", "cnn"), ("b", "lenet"), ("c", "cnn")):
        write_run(tmp_path / "results", run_id, model=model)
    command = [str(tmp_path / "results"), "--out", str(tmp_path / "packed"), "--by"]
    assert main([*command, "model"]) == 0
    assert run_ids(tmp_path / "packed" / "cnn", "rounds") == ["a", "c"]
    assert load(tmp_path / "packed" / "lenet", "runs")["model"].tolist() == ["lenet"]
    assert main([*command, "colour"]) == 1
    assert "error: runs has no column 'colour'" in capsys.readouterr().err


def test_a_damaged_file_is_named(tmp_path: Path, write_run: WriteRun) -> None:
    pack(write_run(tmp_path / "results", "a"), tmp_path / "packed")
    path = tmp_path / "packed" / "rounds.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(LoadError, match=r"rounds\.parquet cannot be read"):
        load(tmp_path / "packed", "rounds")
