"""The soak, short: real processes are killed, and the numbers stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SOAK = Path(__file__).with_name("soak.py")


@pytest.mark.ray
def test_three_faults_change_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(SOAK), "--rounds", "60", "--faults", "3", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "3 faults, and all 60 rounds are those of the quiet run, bit for bit" in done.stdout
    faults = pd.read_parquet(out / "faults.parquet")
    assert len(faults) == 3
    assert set(faults["killed"]) <= {"worker", "aggregator", "driver"}
