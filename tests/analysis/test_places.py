"""Tables, pictures and the report of an address are those of a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from buckets import Server, copied
from pyarrow import fs

from analysis import plots, report, tables
from analysis.load import LoadError, each_run, load
from analysis.places import output, place_of

pytestmark = pytest.mark.integration

WriteRun = Callable[..., Path]


@pytest.fixture
def results(bucket: str, tmp_path: Path, write_run: WriteRun) -> tuple[str, Path]:
    """The same runs at an address and in a folder."""
    folder = tmp_path / "folder"
    write_run(folder, "a", [(0.5, 0.25), (0.75, 0.5)], clients=[[0.5, 0.25], [0.75, 0.5]])
    write_run(folder, "b", [(0.5, 0.25), (0.625, 0.5)], algorithm="fedprox")
    write_run(folder, "c", [(0.5, 0.25)], status="running", seed=1)
    files, base = fs.FileSystem.from_uri(bucket)
    for path in folder.rglob("*.parquet"):
        name = f"{base}/{path.relative_to(folder)}"
        fs.copy_files(str(path), name, destination_filesystem=files)
    return bucket, copied(bucket, tmp_path / "copy")


def test_tables_and_pictures_are_equal(
    results: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, folder = results
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    told = []
    for place in (address, str(folder)):
        assert tables.main([place]) == 0
        told.append(capsys.readouterr())
        assert plots.main([place, "--what", "rounds"]) == 0
        capsys.readouterr()
    assert told[0] == told[1]
    names = sorted(path.name for path in (folder / "plots").iterdir())
    assert sorted(path.name for path in Path("plots").iterdir()) == names
    for name in ("plots/summary.csv", "plots/summary.md"):
        assert Path(name).read_text() == (folder / name).read_text()


@pytest.mark.slow
def test_the_report_is_equal(
    results: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = results
    monkeypatch.chdir(tmp_path)
    assert report.main([address]) == report.main([str(folder)]) == 0
    assert Path("report.html").read_text() == (folder / "report.html").read_text()


def test_columns_and_rows_are_chosen(results: tuple[str, Path]) -> None:
    address, folder = results
    chosen = load(address, "rounds", ["round", "bytes_up"], runs=["a"])
    assert list(chosen.columns) == ["round", "bytes_up"]
    assert chosen.equals(load(folder, "rounds", ["round", "bytes_up"], runs=["a"]))
    assert [run_id for run_id, _ in each_run([address], "clients")] == ["a"]
    with pytest.raises(
        LoadError, match=r"run 'a' is there twice: in s3://.*rounds and in .*rounds"
    ):
        load([address, folder], "rounds")


def test_what_cannot_be_read_is_named(
    bucket: str, s3_server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for address, rule in (
        (bucket, "there is no results folder s3://"),
        (s3_server.address("nowhere"), "there is no results folder s3://nowhere/results"),
        ("s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http", "s3://bucket/x cannot be read"),
        ("nowhere://bucket/x", "nowhere://bucket/x cannot be read"),
    ):
        assert tables.main([address]) == 1
        assert f"error: {rule}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:mostsecret@bucket/x",
        "s3://bucket/x?access_key=key&secret_key=mostsecret",
        "s3://bucket/x?session_token=mostsecret",
        "s3://bucket/x?endpoint_override=key:mostsecret@127.0.0.1:1",
    ],
)
def test_secrets_in_an_address_are_not_told(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables.main([address]) == 1
    told = capsys.readouterr().err
    assert "must hold no credentials" in told
    assert told.rstrip().endswith("got them for bucket")
    assert "mostsecret" not in told


def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["s3://[bucket/x"]) == 1
    assert "error: s3://[bucket/x cannot be read: Invalid IPv6 URL" in capsys.readouterr().err


def test_a_place_is_named_as_it_was(tmp_path: Path) -> None:
    assert str(place_of(tmp_path) / "rounds") == str(tmp_path / "rounds")
    assert (place_of("results") / "rounds").parent == place_of("results/")
    assert output("s3://bucket/x", "plots") == Path("plots")
    assert output("x", "plots") == Path("x/plots")
