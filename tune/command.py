"""How the commands of this package end."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable

from rich.console import Console

from spatl_ray.errors import ConfigError, SpatlError

REFUSED, INTERRUPTED = 2, 130
"""Exit statuses; 130 is what a shell gives for Ctrl-C."""


WIDTH = 160
"""Columns of what goes to a file or a pipe, which has no width of its own."""


def positive(text: str) -> int:
    """An option's number, at least 1.

    Raises:
        ArgumentTypeError: it is less.
    """
    return _within(text, 1, math.inf)


def at_least_0(text: str) -> int:
    """An option's number, at least 0.

    Raises:
        ArgumentTypeError: it is less.
    """
    return _within(text, 0, math.inf)


def seed(text: str) -> int:
    """An option's seed.

    Raises:
        ArgumentTypeError: no generator takes it.
    """
    return _within(text, 0, 2**32)


def _within(text: str, least: int, end: float) -> int:
    """A number in [least, end)."""
    value = int(text)
    if not least <= value < end:
        rule = f"at least {least}" if end == math.inf else f"in [{least}, {end})"
        raise argparse.ArgumentTypeError(f"must be {rule}, got {value}")
    return value


def console() -> Console:
    """Where a command tells what it does."""
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if has_width else WIDTH)


def carried_out(command: Callable[[], int], hint: str) -> int:
    """The exit status of a command; what it refuses is told in one line a fault.

    Args:
        command: gives the status, or raises.
        hint: how to go on after Ctrl-C.
    """
    try:
        return command()
    except SpatlError as error:
        for fault in error.faults if isinstance(error, ConfigError) else (str(error),):
            print(f"error: {fault}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print(f"interrupted; {hint}", file=sys.stderr)
        return INTERRUPTED
