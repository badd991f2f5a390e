from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import analysis.load
from analysis.load import LoadError, each_run, load, run_ids
from analysis.places import Place, place_of
from spatl_ray.results.schema import SCHEMA_VERSION, TABLES, file_schema

WriteRun = Callable[..., Path]


def test_constants_agree_with_the_schema() -> None:
    assert analysis.load.SCHEMA_VERSION == SCHEMA_VERSION
    assert set(analysis.load.TABLES) == set(TABLES)


def test_all_columns_of_all_runs_in_the_order_of_ids(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "b", [(0.5, None), (0.75, 0.5)])
    write_run(tmp_path, "a", [(0.25, 0.125)], status="running")
    rounds = load(tmp_path, "rounds")
    assert set(rounds.columns) == set(TABLES["rounds"].names)
    assert rounds["run_id"].tolist() == ["a", "b", "b"]
    assert rounds["local_test_accuracy_mean"].tolist() == [0.25, 0.5, 0.75]
    assert rounds["global_test_accuracy"].isna().tolist() == [False, True, False]
    assert load(str(tmp_path), "runs")["status"].tolist() == ["running", "finished"]


def test_added_columns_are_those_of_the_schema() -> None:
    for table, added in analysis.load.ADDED.items():
        assert {name: TABLES[table].field(name).type for name in added} == added


def test_older_tables_are_null_in_the_columns_that_they_lack(
    tmp_path: Path, write_run: WriteRun, make_older: Callable[[Path], Path]
) -> None:
    old = make_older(write_run(tmp_path / "old", "old", [(0.5, 0.5), (0.75, 0.5)]))
    new = write_run(tmp_path / "new", "new", simulated=8.0)
    assert not set(analysis.load.ADDED["rounds"]) & set(
        pq.read_schema(old / "rounds" / "run_id=old" / "round-000000.parquet").names
    )
    alone = load(old, "rounds")
    assert set(alone.columns) == set(TABLES["rounds"].names)
    assert alone["local_test_accuracy_mean"].tolist() == [0.5, 0.75]
    both = load([old, new], "rounds", ["run_id", "late", "simulated_seconds_cumulative"])
    assert both["run_id"].tolist() == ["new", "old", "old"]
    assert both["simulated_seconds_cumulative"].fillna(-1).tolist() == [8.0, -1, -1]
    assert both["late"].fillna(-1).tolist() == [0, -1, -1]


def test_older_clients_have_no_simulated_time(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "a")
    added = analysis.load.ADDED["clients"]
    fields = [field for field in file_schema("clients") if field.name not in added]
    row = dict.fromkeys(("round", "client", "bytes_up", "bytes_down"), 1) | {"participated": True}
    schema = pa.schema(fields, file_schema("clients").metadata)
    path = tmp_path / "clients" / "run_id=a" / "round-000000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row], schema), path)
    clients = load(tmp_path, "clients")
    assert set(clients.columns) == set(TABLES["clients"].names)
    assert clients["bytes_up"].tolist() == [1]
    assert clients[list(added)].isna().all(axis=None)


def test_columns_and_runs_are_chosen(tmp_path: Path, write_run: WriteRun) -> None:
    for run_id in ("a", "b", "c"):
        write_run(tmp_path, run_id)
    chosen = load(tmp_path, "rounds", ["bytes_up", "run_id"], runs=["c", "a"])
    assert chosen.to_dict("list") == {"bytes_up": [10**6, 10**6], "run_id": ["a", "c"]}
    assert load(tmp_path, "rounds", ["round"]).columns.tolist() == ["round"]


def test_a_run_that_was_not_asked_for_is_not_opened(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "good")
    broken = tmp_path / "rounds" / "run_id=broken" / "round-000000.parquet"
    broken.parent.mkdir()
    broken.write_bytes(b"not parquet")
    assert load(tmp_path, "rounds", ["run_id"], ["good"])["run_id"].tolist() == ["good"]


def test_several_folders_are_read_as_one(tmp_path: Path, write_run: WriteRun) -> None:
    folders = [write_run(tmp_path / "k=1", "b"), write_run(tmp_path / "k=2", "a")]
    assert load(folders, "rounds")["run_id"].tolist() == ["a", "b"]
    assert "k" not in load(folders, "rounds").columns
    write_run(tmp_path / "k=2", "b")
    with pytest.raises(LoadError, match=r"run 'b' is there twice: in .*k=1.* and in .*k=2"):
        load(folders, "rounds")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "epochs"}, "one of runs, rounds, clients, layers, events, got 'epochs'"),
        ({"table": "rounds", "columns": ["lr", "colour"]}, "rounds has no column 'colour'"),
        ({"table": "rounds", "runs": ["a", "z"]}, "no rows of run 'z' in rounds; runs there: a"),
        ({"table": "rounds", "runs": []}, "runs must name at least one run"),
        ({"table": "layers"}, "layers holds no rows in "),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, write_run: WriteRun, arguments: dict[str, object], message: str
) -> None:
    write_run(tmp_path, "a")
    with pytest.raises(LoadError, match=message):
        load(tmp_path, **arguments)  # type: ignore[arg-type]


def test_folders_that_hold_no_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no results folder .*missing"):
        load(tmp_path / "missing", "runs")
    with pytest.raises(LoadError, match="holds no results: none of runs, rounds"):
        load(tmp_path, "runs")
    with pytest.raises(LoadError, match="no folder at all"):
        load([], "runs")


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events" / "run_id=a" / "round-000000.parquet"
    path.parent.mkdir(parents=True)
    schema = TABLES["events"].remove(0)
    pq.write_table(schema.empty_table(), path)
    with pytest.raises(LoadError, match="events holds no rows"):
        load(tmp_path, "events")


@pytest.mark.parametrize("version", ["2", None])
def test_another_schema_version_is_refused(
    tmp_path: Path, write_run: WriteRun, version: str | None
) -> None:
    write_run(tmp_path, "a")
    table = pa.table({"round": [0]})
    if version is not None:
        table = table.replace_schema_metadata({"spatl_schema_version": version})
    path = tmp_path / "rounds" / "run_id=b" / "round-000000.parquet"
    path.parent.mkdir()
    pq.write_table(table, path)
    found = version or "none"
    with pytest.raises(LoadError, match=f"run_id=b holds .* version {found}; this code reads .* 1"):
        load(tmp_path, "rounds")


def test_files_that_a_compaction_removes_meanwhile_are_looked_up_again(
    tmp_path: Path, write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, "a")
    run = place_of(tmp_path / "rounds" / "run_id=a")
    looked_up = analysis.load._files
    gone = [run / "round-000009.parquet"]

    def with_a_vanished_file(place: Place) -> list[Place]:
        return looked_up(place) + (gone[:1] and [gone.pop()] if place == run else [])

    monkeypatch.setattr(analysis.load, "_files", with_a_vanished_file)
    assert len(load(tmp_path, "rounds")) == 1
    monkeypatch.setattr(analysis.load, "_files", lambda place: [run / "round-000009.parquet"])
    with pytest.raises(LoadError, match=r"cannot read rounds: .*round-000009\.parquet"):
        load(tmp_path, "rounds")


def test_analysis_imports_nothing_but_the_stack_of_tables_and_pictures() -> None:
    allowed = {"analysis", "numpy", "pandas", "pyarrow", "matplotlib", "scipy", "__future__"}
    for path in Path(analysis.load.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                assert top in allowed or top in sys.stdlib_module_names, f"{path.name}: {name}"


def test_strings_are_strings(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "a")
    assert pd.api.types.is_string_dtype(load(tmp_path, "runs")["run_id"])


def test_rows_are_chosen_by_an_expression(tmp_path: Path, write_run: WriteRun) -> None:
    for run_id in ("a", "b"):
        write_run(tmp_path, run_id, [(0.25, 0.5), (0.5, 0.5), (0.75, 0.5)])
    where = pc.field("local_test_accuracy_mean") > 0.3
    chosen = load(tmp_path, "rounds", ["run_id", "round"], where=where)
    assert chosen.to_dict("list") == {"run_id": ["a", "a", "b", "b"], "round": [1, 2, 1, 2]}
    with pytest.raises(LoadError, match="rounds holds no rows"):
        load(tmp_path, "rounds", where=pc.field("round") > 9)


def test_runs_come_one_after_the_other(tmp_path: Path, write_run: WriteRun) -> None:
    for run_id in ("b", "a"):
        write_run(tmp_path, run_id, [(0.25, 0.5)] * (2 if run_id == "b" else 1))
    found = [(run_id, len(rows)) for run_id, rows in each_run(tmp_path, "rounds", ["round"])]
    assert found == [("a", 1), ("b", 2)]
    assert run_ids(tmp_path) == ["a", "b"]


def test_a_damaged_file_is_named_with_its_cure(tmp_path: Path, write_run: WriteRun) -> None:
    """As a copy that was broken off leaves it."""
    write_run(tmp_path, "a")
    path = tmp_path / "rounds" / "run_id=a" / "round-000000.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LoadError, match=r"run_id=a cannot be read: .*; copy it again, or move it"):
        load(tmp_path, "rounds")
