"""A run whose cluster is gone goes on with another one, and its workers import as its driver does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken_off import broken_off, experiment_of, without_history
from identity import assert_identical, everything
from own_modules import modules_in

from spatl_ray import run

pytestmark = [pytest.mark.integration, pytest.mark.ray, pytest.mark.slow]

OWN = """
import numpy as np
from spatl_ray.data.partition import Partition


def deal(labels, features, groups, clients, generator):
    offsets = np.linspace(0, len(labels), clients + 1).astype(np.int64)
    return Partition(generator.permutation(len(labels)), offsets, double)


def double(client, indices, features):
    return 2 * features
"""
HIDING = """
from pathlib import Path

Path({called!r}).touch()
raise SystemExit("hijacked")
"""
COMMAND = "import sys; del sys.path[0]; from spatl_ray.cli import main; sys.exit(main())"
"""What a shell's `spatl` does: the current folder is not searched before `spatl` says so."""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with modules_in(tmp_path, monkeypatch, own_deal=OWN):
        yield


def with_engine(folder: Path, **engine: object) -> None:
    """The recorded run, as if it had begun with another engine."""
    (path,) = (folder / "runs").rglob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    config = json.loads(table["config"][0].as_py())
    config["engine"] |= engine
    index = table.schema.get_field_index("config")
    column = pa.array([json.dumps(config)])
    pq.write_table(table.set_column(index, table.schema.field(index), column), path)


def test_it_goes_on_here(tmp_path: Path) -> None:
    """Its own part is found by the workers, too, and a file of the folder hides torch from nobody."""
    fields = {
        "model": {"name": "mlp", "options": {"hidden": [8]}},
        "partition": {"name": "own_deal:deal"},
    }
    whole, cut = (experiment_of(tmp_path / name, "scaffold", **fields) for name in ("whole", "cut"))
    run(whole)
    broken_off(cut, after=3)
    with_engine(tmp_path / "cut", backend="ray", workers=1, address="127.0.0.1:1")
    (tmp_path / "torch.py").write_text(HIDING.format(called=str(tmp_path / "called")))
    root = str(Path(__file__).parents[2])
    where = ["--folder", "cut", "--address", "local"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "resume", cut.run_id, *where],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "called").exists()
    row = pd.read_parquet(tmp_path / "cut" / "runs").iloc[0]
    assert row["status"] == "finished"
    assert json.loads(row["config"])["engine"]["address"] is None
    assert_identical(without_history(everything(cut)), without_history(everything(whole)))
