"""Modules of a user's own in the current folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def modules_in(folder: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> Iterator[None]:
    """While entered, the folder is the current one and has these modules."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    try:
        yield
    finally:
        for name in texts:
            sys.modules.pop(name, None)
