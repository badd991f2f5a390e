"""Own algorithms, models and data sets by dotted name: `package.module:Name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from spatl_ray.errors import ConfigError, PluginError, SpatlError

DOTTED = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")

MISFITS = (TypeError, KeyError, ValueError)
"""What a class or function raises whose options do not fit."""

PACKAGE = Path(__file__).parent

NOT_OWN = {*sys.stdlib_module_names, "spatl_ray", "analysis", "tune", "tests"}
"""Modules that are no user's, also where the current folder is a checkout of this project."""


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
            f"got {name!r} ({error}){_taken_from(module_name)}"
        ) from error
    if not callable(found):
        raise ConfigError(
            f"{field} must name a class or a function, got {name!r}: a {type(found).__name__}"
        )
    return found  # type: ignore[no-any-return]


def _taken_from(module: str) -> str:
    """Which file a module is: an installed one hides an own one of the same name."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return f"; {module} was imported from {file}" if file else ""


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


def lies_in(name: str, folder: Path, foreign: Path) -> bool:
    """Whether a dotted name's module is one of a folder, and is what would be imported.

    Nothing is imported. A folder without an `__init__.py` is no package here.

    Args:
        name: `package.module:Name`.
        folder: whose modules are the user's own.
        foreign: what lies in this folder is somebody else's.
    """
    module = name.partition(":")[0]
    top = module.partition(".")[0]
    file = _source_in(module, folder)
    if top in NOT_OWN or file is None or _is_below(file, foreign):
        return False
    return _imported_from(top) == _source_in(top, folder)


def _is_below(file: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, by its name or by what that links to."""
    named = file.is_relative_to(os.path.abspath(folder))
    return named or file.resolve().is_relative_to(folder.resolve())


def _source_in(module: str, folder: Path) -> Path | None:
    """The file of a module, or package, of a folder; None if it has none."""
    parts, search = module.split("."), [str(folder)]
    origin = None
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), search)
        if spec is None or not spec.has_location or spec.origin is None:
            return None
        origin, search = spec.origin, spec.submodule_search_locations or []
    return None if origin is None else Path(origin).absolute()


def _imported_from(module: str) -> Path | None:
    """The file that `import` takes, or took, for a module; None if there is none.

    Packages that a dotted name's module lies in are imported.
    """
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # also what a package raises: whoever loads the module tells it
        return None
    known = spec is not None and spec.has_location and spec.origin
    return Path(known).absolute() if known else None


def is_defined_in(name: str, found: object, folder: Path, foreign: Path) -> bool:
    """Whether what a dotted name stands for was made in a module of a folder, not imported into one.

    Args:
        name: `package.module:Name`; its module is imported.
        found: what it stands for.
        folder, foreign: as for `lies_in`.
    """
    module_name, _, attribute = name.partition(":")
    step: object = importlib.import_module(module_name)
    for each in attribute.split(".")[:-1]:
        step = getattr(step, each)
        if isinstance(step, ModuleType):
            return False
    made_in = getattr(found, "__module__", None)
    return isinstance(made_in, str) and lies_in(made_in, folder, foreign)


def sources(names: Iterable[str]) -> dict[str, str]:
    """Of each module that dotted names lie in and that has a file: the digest of that file.

    Args:
        names: `package.module:Name`.

    Returns:
        Sixteen hex digits of the file's SHA-256, by the module's name.
    """
    files = {name.partition(":")[0]: _imported_from(name.partition(":")[0]) for name in names}
    return {
        module: hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for module, file in sorted(files.items())
        if file is not None and file.is_file()
    }


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
