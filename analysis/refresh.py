"""Renew the tables of a Markdown page from the commands that stand above them.

python analysis/refresh.py RESULTS.md

A table stands between two comments, the first of which names its command:

    <!-- python analysis/tables.py results/reproduce --what accuracy -->
    ...
    <!-- end -->

Only programs of analysis/ are run. A command that fails leaves the page as it is.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BLOCK = re.compile(
    r"^<!-- python (analysis/\w+\.py)( [^\n]*)? -->\n(.*?)^<!-- end -->$", re.M | re.S
)
"""A command, its options, and what it gave last time."""


def refreshed(page: str) -> str:
    """The page with what its commands give now.

    Raises:
        RuntimeError: a command fails; with what it said.
    """
    return BLOCK.sub(_renewed, page)


def _renewed(block: re.Match[str]) -> str:
    program, options = block[1], block[2] or ""
    command = [sys.executable, program, *shlex.split(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program}{options}: {done.stderr.strip()}")
    return f"<!-- python {program}{options} -->\n\n{done.stdout.strip()}\n\n<!-- end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Renew the pages that the command line names; 1 if one cannot be."""
    parser = argparse.ArgumentParser(description="Renew the tables of Markdown pages.")
    parser.add_argument("pages", nargs="+", type=Path, help="files with commands in comments")
    for page in parser.parse_args(arguments).pages:
        try:
            text = refreshed(page.read_text(encoding="utf-8"))
        except (OSError, RuntimeError) as error:
            print(f"error: {page}: {error}", file=sys.stderr)
            return 1
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
