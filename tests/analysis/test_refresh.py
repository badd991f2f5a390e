"""A page's tables are what its commands give, or the page stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.refresh import main

pytestmark = pytest.mark.integration

PAGE = """# Title

<!-- python analysis/tables.py {folder} --what accuracy -->
an old table
<!-- end -->

Text that stays.
"""


@pytest.fixture
def folder(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    write_run(tmp_path / "results", "one", [(0.5, 0.25)], 10, 10, algorithm="fedavg", seed=0)
    return tmp_path / "results"


def test_tables_are_renewed_and_the_rest_stays(tmp_path: Path, folder: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(folder=folder))
    assert main([str(page)]) == 0
    once = page.read_text()
    assert "an old table" not in once
    assert "| FedAvg" in once
    assert once.startswith("# Title\n")
    assert once.endswith("<!-- end -->\n\nText that stays.\n")
    assert main([str(page)]) == 0
    assert page.read_text() == once


def test_each_of_several_tables_is_renewed(tmp_path: Path, folder: Path) -> None:
    page = tmp_path / "page.md"
    text = PAGE.format(folder=folder)
    page.write_text(text + text.replace("accuracy", "cost"))
    assert main([str(page)]) == 0
    renewed = page.read_text()
    assert renewed.count("Text that stays.") == 2
    assert renewed.count("| FedAvg") == 2
    assert "an old table" not in renewed


def test_a_command_that_fails_leaves_the_page(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    text = PAGE.format(folder=folder) + PAGE.format(folder=tmp_path / "none")
    page.write_text(text)
    assert main([str(page)]) == 1
    assert page.read_text() == text
    assert f"tables.py {tmp_path / 'none'}" in capsys.readouterr().err


def test_only_programs_of_analysis_are_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "<!-- python ../elsewhere.py -->\n<!-- end -->\n<!-- python -c 1 -->\n<!-- end -->\n"
    page.write_text(text)
    assert main([str(page)]) == 0
    assert page.read_text() == text
