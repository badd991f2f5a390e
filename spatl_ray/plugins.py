"""Own algorithms, models and data sets by dotted name: `package.module:Name`."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from spatl_ray.errors import ConfigError, PluginError, SpatlError

DOTTED = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")

MISFITS = (TypeError, KeyError, ValueError)
"""What a class or function raises whose options do not fit."""

PACKAGE = Path(__file__).parent


def is_dotted(name: object) -> bool:
    """Whether `name` has the form `package.module:Name`."""
    return isinstance(name, str) and DOTTED.match(name) is not None


def load(name: str, field: str) -> Callable[..., Any]:
    """The class or function that `package.module:Name` names.

    Args:
        name: the dotted name.
        field: the config field it came from, for the error.

    Raises:
        ConfigError: the module or the name in it does not exist, or cannot be called.
        PluginError: the module raises something else when it is imported.
    """
    module_name, _, attribute = name.partition(":")
    try:
        with blamed(field, name, "when it was imported", (ImportError,)):
            found: Any = importlib.import_module(module_name)
        for step in attribute.split("."):
            found = getattr(found, step)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{field} must name something that can be imported as package.module:Name, "
            f"got {name!r} ({error})"
        ) from error
    if not callable(found):
        raise ConfigError(
            f"{field} must name a class or a function, got {name!r}: a {type(found).__name__}"
        )
    return found  # type: ignore[no-any-return]


def named_in(values: object, field: str = "") -> Iterator[tuple[str, str]]:
    """Field and dotted name of all own parts in a config's plain values.

    Args:
        values: mappings, lists, texts and numbers.
        field: that they belong to.
    """
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from named_in(value, f"{field}.{key}" if field else str(key))
    elif isinstance(values, list):
        for index, value in enumerate(values):
            yield from named_in(value, f"{field}[{index}]")
    elif is_dotted(values):
        yield field, str(values)


def lies_in(name: str, folder: Path) -> bool:
    """Whether a dotted name's module, or package, is one of a folder; nothing is imported.

    Args:
        name: `package.module:Name`.
        folder: the one that is searched first.
    """
    top = name.partition(":")[0].partition(".")[0]
    known = getattr(sys.modules.get(top), "__file__", None)
    if top in sys.stdlib_module_names or (known and not Path(known).is_relative_to(folder)):
        return False
    return PathFinder.find_spec(top, [str(folder)]) is not None


@contextmanager
def blamed(
    field: str, name: str, moment: str = "", passed: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Inside, what an own part raises becomes an error that names it and the line.

    Errors of this package go through as they are: an own part may raise them on purpose.

    Args:
        field: the config field that names the part.
        name: its dotted name.
        moment: when it is called, such as "in cohort".
        passed: further exceptions that go through.

    Raises:
        PluginError: caused by what was raised inside.
    """
    try:
        yield
    except SpatlError:
        raise
    except passed:
        raise
    except Exception as error:
        called = f"{field} {name!r} raised" + (f" {moment}" if moment else "")
        raise PluginError(
            f"{called}, at {raised_at(error)}: {type(error).__name__}: {error}"
        ) from error


def raised_at(error: BaseException) -> str:
    """FILE:LINE in which an own part raised: its last line in the first file outside this package."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if not _is_between(frame.filename)]
    file = foreign[0].filename if foreign else frames[-1].filename
    last = [frame for frame in frames if frame.filename == file][-1]
    return f"{last.filename}:{last.lineno}"


def _is_between(file: str) -> bool:
    """Whether a file calls own parts: one of this package, or Python's machinery of imports."""
    return Path(file).is_relative_to(PACKAGE) or "importlib" in file
